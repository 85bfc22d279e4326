"""Give a tokenizer new words: each becomes one token, and every other text is cut as it was.

Words of scripts with spaces enter the vocabulary as the tokenizer spells them after a space, and are found where the
tokenizer cuts out the whole word. Words of scripts without spaces (Chinese, Thai) are found wherever they stand, before
anything else is cut: they are added tokens, as Hugging Face has them.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qualm.errors import InputError, Unsupported, UsageError
from qualm.tokens.measure import SPACELESS, WORD, unknown_id
from qualm.tokens.settings import whole
from qualm.tokens.tokenizer import Tokens

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
NO_SPACES = re.compile(f"[{SPACELESS}]")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
LONGEST, LEAST, VARIETY = 4, 5, 3  # characters of a Chinese word; occurrences; different neighbours on either side
UNWANTED = -1e9  # the score of what is in a Unigram vocabulary and not to be cut
BETTER = 0.1  # by how much a word's score beats that of its pieces
NAMED = 5  # words that an error names


@dataclass(frozen=True)
class Extended:
    """The new tokenizer, the id of each word, and for each new id the old ids that spelled it."""

    tokens: Tokens
    words: Mapping[str, int]
    pieces: Mapping[int, tuple[int, ...]]


def read_words(path: Path | str) -> list[str]:
    """A word a line, of a UTF-8 file. Raises InputError if it cannot be read or holds none."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        what = f"not UTF-8 ({error.reason} at byte {error.start + 1})"
        raise InputError(what, where=str(path), then="convert the file to UTF-8") from error
    words = [line.strip() for line in text.splitlines() if line.strip()]
    if not words:
        raise InputError("holds no words", where=str(path), then="write a word a line")
    return words


def extend(tokens: Tokens, words: Sequence[str]) -> Extended:
    """Make each word one token; ids of old tokens stay, new ones follow on the highest.

    Raises UsageError, naming the words, if one is a token already, spells a control token or is not one word to the
    tokenizer; Unsupported for a tokenizer that cuts no words, or that spells what is written by another one.
    """
    wanted = list(dict.fromkeys(words))
    if not wanted:
        raise InputError("there are no words to add", then="name some")
    if tokens.target:
        raise Unsupported("what is read and what is written are cut by two tokenizers", where=tokens.where)
    _refuse_control(tokens, wanted)
    inside = {word: form for word in wanted if not NO_SPACES.search(word) for form in [form_of(tokens, word)]}
    bad = [word for word, form in inside.items() if form is None]
    if bad:
        raise UsageError(
            f"not one word to this tokenizer: {_some(bad)}", where=tokens.where, then="add the parts by themselves"
        )
    vocabulary = tokens.tokenizer.get_vocab(with_added_tokens=True)
    nothing = unknown_id(tokens)
    whole_ones = {word for word in wanted if len(ids := spelling(tokens, word)) == 1 and ids[0] != nothing}
    there = [word for word in wanted if inside.get(word, word) in vocabulary or word in whole_ones]
    if there:
        raise UsageError(f"tokens already: {_some(there)}", where=tokens.where, then="leave them out")
    forms = list(dict.fromkeys(form for form in inside.values() if form))
    first = tokens.vocab_size
    numbered = {form: first + i for i, form in enumerate(forms)}
    outside = {word: first + len(forms) + i for i, word in enumerate(w for w in wanted if w not in inside)}
    found = {word: outside[word] if word in outside else numbered[inside[word] or ""] for word in wanted}
    pieces = {i: tuple(spelling(tokens, word)) for word, i in found.items()}
    made = json.loads(tokens.tokenizer.to_str())
    _settle_added(made)
    GROW.get(made["model"]["type"], _grow_table)(made["model"], numbered, pieces)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    made["added_tokens"] += [{"id": i, "content": word, **plain} for word, i in outside.items()]
    tokenizer = whole(lambda: Tokenizer.from_str(json.dumps(made)), tokens.where)
    extended = Extended(replace(tokens, tokenizer=tokenizer), found, pieces)
    _check(tokens, extended)
    return extended


def form_of(tokens: Tokens, word: str) -> str | None:
    """How the vocabulary would spell the word after a space; None if it is cut into several words, or into none."""
    made = tokens.tokenizer
    alone, after = (made.normalizer.normalize_str(t) if made.normalizer else t for t in ("a", f"a {word}"))
    if made.pre_tokenizer is None:
        return after.removeprefix(alone) if _kind(made) == "Unigram" else None
    before, cut = (made.pre_tokenizer.pre_tokenize_str(text) for text in (alone, after))
    return cut[-1][0] if len(cut) == len(before) + 1 else None


def spelling(tokens: Tokens, word: str) -> list[int]:
    """The ids of the word after a space; of a script without spaces, in the middle of a text."""
    before = tokens.encode("a")
    ids = tokens.encode(f"a{word}" if NO_SPACES.search(word) else f"a {word}")
    return ids[len(before) :] if ids[: len(before)] == before else tokens.encode(word)


def candidates(tokens: Tokens, texts: Iterable[str], count: int) -> list[str]:
    """The words of the texts that would save most tokens if each were one, most first: at most `count`.

    In Chinese, where nothing marks a word, those runs of 2 to LONGEST characters count that have VARIETY different
    neighbours on both sides (accessor variety: Feng et al. 2004, Computational Linguistics 30(1)). Raises InputError
    if there are none.
    """
    kept = list(texts)
    often = Counter(word for text in kept for word in WORD.findall(text))
    often += chinese_words(kept)
    control = tokens.special
    saved: dict[str, int] = {}
    for word, number in often.items():
        if number < LEAST or any(name in word for name in control):
            continue
        fits = NO_SPACES.search(word) or form_of(tokens, word)
        gain = number * (len(spelling(tokens, word)) - 1) if fits else 0
        if gain > 0:
            saved[word] = gain
    if not saved:
        raise InputError(
            f"no word that stands there {LEAST} times or more is cut", then="give more text, or --add WORDS"
        )
    return sorted(saved, key=lambda word: (-saved[word], word))[:count]


def chinese_words(texts: Sequence[str]) -> Counter[str]:
    """Runs of Chinese characters that stand among different neighbours, and how often they stand there."""
    often = Counter(gram for _, gram, _ in _grams(texts))
    left: dict[str, set[str]] = defaultdict(set)
    right: dict[str, set[str]] = defaultdict(set)
    for before, gram, after in _grams(texts):
        if often[gram] >= LEAST:
            left[gram].add(before)
            right[gram].add(after)
    free = {gram for gram in left if min(len(left[gram]), len(right[gram])) >= VARIETY}
    return Counter({gram: often[gram] for gram in free})


def _grams(texts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(the character before, a run of Chinese characters, the one after); "" at the end of a stretch of them."""
    for text in texts:
        for run in HAN.findall(text):
            for size in range(2, LONGEST + 1):
                for at in range(len(run) - size + 1):
                    yield run[max(0, at - 1) : at], run[at : at + size], run[at + size : at + size + 1]


def _kind(tokenizer: Tokenizer) -> str:
    return type(tokenizer.model).__name__


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(map(repr, words[:NAMED])) + more


def _refuse_control(tokens: Tokens, words: Sequence[str]) -> None:
    bad = [word for word in words if any(name in word for name in tokens.special)]
    if bad:
        raise UsageError(f"spelled as a control token: {_some(bad)}", where=tokens.where, then="leave them out")
    spaced = [word for word in words if not word or any(character.isspace() for character in word)]
    if spaced:
        raise UsageError(f"white space in a word: {_some(spaced)}", then="write a word a line")


def _settle_added(made: dict[str, Any]) -> None:
    """Put added tokens into the vocabulary where they have their ids: the library numbers those outside it anew."""
    vocabulary = made["model"]["vocab"]
    for added in sorted(made["added_tokens"], key=lambda each: each["id"]):
        if isinstance(vocabulary, list):
            if added["id"] == len(vocabulary):
                vocabulary.append([added["content"], UNWANTED])
        else:
            vocabulary.setdefault(added["content"], added["id"])


def _grow_table(model: dict[str, Any], numbered: Mapping[str, int], pieces: Mapping[int, Sequence[int]]) -> None:
    """WordPiece and words."""
    model["vocab"] |= numbered


def _grow_bpe(model: dict[str, Any], numbered: Mapping[str, int], pieces: Mapping[int, Sequence[int]]) -> None:
    """A word that is in the vocabulary whole needs no merges."""
    model["vocab"] |= numbered
    if numbered:
        model["ignore_merges"] = True


def _grow_unigram(model: dict[str, Any], numbered: Mapping[str, int], pieces: Mapping[int, Sequence[int]]) -> None:
    """A word is worth a little more than its pieces; one that was spelled in bytes, as much as the least piece."""
    vocabulary = model["vocab"]
    least = min((score for piece, score in vocabulary if score > UNWANTED and not BYTE.fullmatch(piece)), default=0.0)
    for form, i in numbered.items():
        old = [vocabulary[piece] for piece in pieces[i]]
        in_bytes = any(BYTE.fullmatch(piece) for piece, _ in old)
        vocabulary.append([form, least if in_bytes else sum(score for _, score in old) + BETTER])


GROW = {"BPE": _grow_bpe, "Unigram": _grow_unigram}


def _check(old: Tokens, new: Extended) -> None:
    """Raises Unsupported if a token has another id than before, is cut in another way, or a word is not one token."""
    before = old.tokenizer.get_vocab(with_added_tokens=True)
    after = new.tokens.tokenizer.get_vocab(with_added_tokens=True)
    moved = [name for name, i in before.items() if after.get(name) != i]
    wrong = [word for word, i in new.words.items() if spelling(new.tokens, word) != [i]]
    texts = [old.decode([i], skip_special=False) for i in before.values()]
    cut = zip(texts, old.encode_many(texts), new.tokens.encode_many(texts), strict=True)
    words = set(new.words)
    other = [text for text, a, b in cut if a != b and not any(word in text for word in words)]
    forged = [name for name, i in old.special.items() if i in new.tokens.encode(name) and i not in old.encode(name)]
    reasons = {"would move": moved, "would not be found": wrong, "would be cut in another way": other}
    for what, found in {**reasons, "could be spelled in a text": forged}.items():
        if found:
            raise Unsupported(f"this tokenizer cannot be extended: {_some(found)} {what}", where=old.where)
