"""Train a tokenizer: byte-level BPE, Unigram, WordPiece, words or characters.

Sennrich et al. 2016 (BPE), Radford et al. 2019 (over bytes), Kudo 2018 (Unigram, arXiv 1804.10959), Schuster and
Nakajima 2012 (WordPiece), all by the `tokenizers` library. Of BPE, Unigram and words every digit is its own token, so
that numbers are spelled alike wherever they stand (what GGUF calls the pre-tokenizer "smollm").
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from qualm.errors import InputError, UsageError
from qualm.tokens.classic import SPACE, characters
from qualm.tokens.template import DEFAULT
from qualm.tokens.tokenizer import Tokens

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL = ("<|end|>", "<|pad|>", *ROLES)
UNKNOWN = "[UNK]"
TURNS = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- "<|" + message.role + "|>" + message.content -}}
{%- if message.role == "assistant" -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>" -}}{%- endif -%}
"""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPELLED = "<(?=0x[0-9A-F]{2}>)"  # so that a text that spells a byte does not become one
REST = f"{SPACE}?[^\\s{SPACE}\\p{{L}}\\p{{M}}\\p{{N}}]+|\\s+|{SPACE}+(?={SPACE})|{SPACE}+"
WORDS = f"{SPACE}?[\\p{{L}}\\p{{M}}]+|{REST}"  # a word with the space before it; digits are cut before
WORDS_AND_HAN = f"{SPACE}?(?:\\p{{Han}}|[\\p{{L}}\\p{{M}}&&[^\\p{{Han}}]]+)|{REST}"
COVERED, SHARE = (
    0.9995,
    3,
)  # characters that make up so much of a text get a piece, in a third of the vocabulary at most
DIGITS, STEP = 3, 1e-4  # of a score: what is kept; what the trainer puts between characters that it gives back


def train_tokens(
    texts: Iterable[str],
    vocab_size: int,
    kind: str = "bpe",
    special: Sequence[str] = SPECIAL,
    frame: tuple[bool, bool] = (True, False),
    mask: str = "",
) -> Tokens:
    """Learn up to `vocab_size` tokens, `special` among them with the ids 0, 1, ...; the same texts give the same.

    bpe and unigram spell in bytes what they have no token for, so nothing is unknown. wordpiece is BERT's, cased: a
    word with a character that the texts lack, or longer than 100, is [UNK], and white space does not come back. word
    keeps the most frequent words (and Han characters), character the most frequent characters; the rest is [UNK].
    All but bpe hold the texts in memory.

    The first special token ends a document, and so stands before one too (eos = bos): it is put before a prompt, so
    that a prompt is read as the start of a document. `frame` says whether it is put before a text, and after it. The
    second, if any, is the padding; `mask` names one that hides a word. With a token for each role, conversations are
    written in TURNS, else in the default template. Raises UsageError for another kind or if `vocab_size` has no room
    for what must be in, InputError if there is no text.
    """
    if kind not in LEARNERS:
        raise UsageError(f"no kind of tokenizer is named {kind!r}", then=f"say one of {', '.join(LEARNERS)}")
    if not special or len(set(special)) < len(special):
        raise UsageError("special tokens must be at least one, and all different")
    control = list(special) if kind == "bpe" else [*special, *([] if UNKNOWN in special else [UNKNOWN])]
    least = (256 if kind in ("bpe", "unigram") else 1) + len(control)
    if vocab_size < least:
        bytes_and = "256 bytes and " if kind in ("bpe", "unigram") else "one token and "
        raise UsageError(
            f"a vocabulary of {vocab_size} has no room for {bytes_and}{len(control)} special tokens",
            then=f"ask for at least {least}",
        )
    given = iter(texts)
    first = next((text for text in given if text), None)
    if first is None:
        raise InputError("there is no text to learn tokens from", then="name a folder with text in it")
    tokenizer = LEARNERS[kind](chain([first], given), vocab_size, control)
    tokenizer.post_processor = frame_with(special[0], 0, *frame)
    pad = special[1] if len(special) > 1 else special[0]
    unknown = "" if kind == "bpe" else UNKNOWN
    template = TURNS if set(ROLES) <= set(special) else DEFAULT
    settings = {"mask_token": mask} if mask else {}
    return Tokens(tokenizer, special[0], special[0], pad, unknown, template=template, settings=settings)


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special: Sequence[str] = SPECIAL,
    frame: tuple[bool, bool] = (True, False),
    mask: str = "",
) -> Tokens:
    """`train_tokens` of byte-level BPE."""
    return train_tokens(texts, vocab_size, "bpe", special, frame, mask)


def learn_bpe(texts: Iterable[str], size: int, control: Sequence[str]) -> Tokenizer:
    """The 256 bytes, then the pairs that stand together most often, joined one after the other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level(digits=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(control), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def learn_unigram(texts: Iterable[str], size: int, control: Sequence[str]) -> Tokenizer:
    """The pieces whose sum of log-probabilities spells the texts best; other characters are spelled in bytes.

    As SentencePiece does it (arXiv 1808.06226), but that words are cut first and no space is put before a text.
    """
    kept, room = list(texts), size - len(control) - len(BYTES)
    frequent = frequent_characters(kept, room // SHARE)
    rare = {ord(c): SPACE for c in set().union(*kept) - frequent}
    learner = cut_words(models.Unigram(), WORDS)
    trainer = trainers.UnigramTrainer(
        vocab_size=max(room, len(frequent) + 2) + 1, unk_token=UNKNOWN, show_progress=False
    )
    learner.train_from_iterator((text.translate(rare) for text in kept), trainer)
    pieces = scored(learner)[: max(0, room)]
    lowest = min((score for _, score in pieces), default=0.0) - 10.0  # a byte is worth less than any piece
    reserved = [(name, 0.0) for name in control] + [(name, lowest) for name in BYTES]
    learner.model = models.Unigram(reserved + pieces, unk_id=control.index(UNKNOWN), byte_fallback=True)
    escaped = pre_tokenizers.Split(Regex(SPELLED), behavior="isolated")
    learner.pre_tokenizer = pre_tokenizers.Sequence([escaped, learner.pre_tokenizer])
    learner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace(SPACE, " ")])
    return with_control(learner, control)


def learn_wordpiece(texts: Iterable[str], size: int, control: Sequence[str]) -> Tokenizer:
    """Every character, at the start of a word and inside it ("##c"), then the joins that are most frequent."""
    kept = list(texts)
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = sorted({c for text in kept for c in tokenizer.normalizer.normalize_str(text) if not c.isspace()})
    forms = [*alphabet, *(f"##{c}" for c in alphabet)]
    least = len(control) + len(forms)
    if size < least:
        raise UsageError(
            f"a vocabulary of {size} has no room for {len(alphabet)} characters, at the start of a word and inside it",
            then=f"ask for at least {least}, or for a kind that spells in bytes: bpe, unigram",
        )
    # The library numbers what it meets by a hash that differs from run to run; what it is told to hold, in order.
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*control, *forms], show_progress=False)
    tokenizer.train_from_iterator(kept, trainer)
    tokenizer = with_control(tokenizer, control)
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def learn_words(texts: Iterable[str], size: int, control: Sequence[str]) -> Tokenizer:
    """The most frequent words, each with the space before it, so that a text of known words comes back as it was."""
    tokenizer = cut_words(models.WordLevel(unk_token=UNKNOWN), WORDS_AND_HAN)
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=list(control), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    return with_control(tokenizer, control)


def learn_characters(texts: Iterable[str], size: int, control: Sequence[str]) -> Tokenizer:
    """The most frequent characters."""
    count = Counter(chain.from_iterable(texts))
    frequent = sorted(count, key=lambda c: (-count[c], c))[: size - len(control)]
    return characters({name: i for i, name in enumerate([*control, *frequent])}, control, unknown=UNKNOWN)


LEARNERS: Mapping[str, Callable[[Iterable[str], int, Sequence[str]], Tokenizer]] = {
    "bpe": learn_bpe,
    "unigram": learn_unigram,
    "wordpiece": learn_wordpiece,
    "word": learn_words,
    "character": learn_characters,
}


def frequent_characters(texts: Sequence[str], most: int) -> set[str]:
    """The characters, at most so many, that make up COVERED of the texts."""
    count = Counter(chain.from_iterable(texts))
    left, kept = COVERED * count.total(), set[str]()
    for character in sorted(count, key=lambda c: (-count[c], c))[: max(0, most)]:
        if left <= 0:
            break
        kept.add(character)
        left -= count[character]
    return kept


def scored(learner: Tokenizer) -> list[tuple[str, float]]:
    """The pieces that a Unigram trainer found, best first, free of what differs from run to run: the order in which
    words were added up, and that in which characters that lost their piece were given it back, at the lowest scores.
    """
    found = [(piece, score) for piece, score in json.loads(learner.to_str())["model"]["vocab"] if piece != UNKNOWN]
    least = min((score for _, score in found), default=0.0)
    returned = least + STEP * sum(len(piece) == 1 for piece, _ in found)
    even = [(piece, least if len(piece) == 1 and score <= returned else score) for piece, score in found]
    return sorted(((piece, round(score, DIGITS)) for piece, score in even), key=lambda each: (-each[1], each[0]))


def cut_words(model: models.Model, words: str) -> Tokenizer:
    """A tokenizer that spells a space "▁", and cuts single digits first and then by a pattern."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    digits, by_pattern = pre_tokenizers.Digits(individual_digits=True), Regex(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.Split(by_pattern, behavior="isolated")])
    return tokenizer


def with_control(tokenizer: Tokenizer, control: Sequence[str]) -> Tokenizer:
    """The same with these control tokens, and no others, told apart from text."""
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def byte_level(digits: bool) -> pre_tokenizers.PreTokenizer:
    """Words by GPT-2's rule, spelled in bytes; with `digits`, single digits first."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]) if digits else words


def start_with(token: str, number: int) -> processors.PostProcessor:
    """Put a control token before each text that is encoded with special tokens."""
    return frame_with(token, number, before=True, after=False)


def frame_with(token: str, number: int, before: bool, after: bool) -> processors.PostProcessor:
    """Put a control token before or after each text that is encoded with special tokens."""
    start, end = [f"{token}:0"] * before, [f"{token}:0"] * after
    single = [*start, "$A:0", *end]
    pair = [*single, "$B:1", *([f"{token}:1"] * after)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(token, number)])
