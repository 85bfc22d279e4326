"""Tokenizers of older models, as `tokenizers` runs them: BPE by scores, characters, whole words."""

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # what keras.preprocessing.text.Tokenizer takes for a space
SPACE = "▁"


def scored_bpe(
    vocabulary: Sequence[str], scores: Sequence[float], unknown: str | None = None, prefixed: bool = True
) -> Tokenizer:
    """SentencePiece's BPE: of all neighbours whose join is in the vocabulary, the join with the best score goes first.

    Kudo and Richardson 2018 (arXiv 1808.06226). Spaces are spelled "▁", with `prefixed` one is put before the text; a
    byte that no token spells is written "<0xE4>".
    """
    numbered = {token: i for i, token in enumerate(vocabulary)}
    model = bpe(numbered, dict(zip(vocabulary, scores, strict=True)), unknown)
    tokenizer = Tokenizer(model)
    spaces = [normalizers.Replace(" ", SPACE)]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *spaces] if prefixed else spaces)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return tokenizer


def bpe(
    numbered: Mapping[str, int], scores: Mapping[str, float], unknown: str | None = None, byte_fallback: bool = True
) -> models.BPE:
    """Every way to join two tokens of `scores` to a third, the join with the best score first."""
    joins = [
        (-score, numbered[token[:k]], numbered[token[k:]], token[:k], token[k:])
        for token, score in scores.items()
        for k in range(1, len(token))
        if token[:k] in scores and token[k:] in scores
    ]
    pairs = [join[3:] for join in sorted(joins)]
    return models.BPE(dict(numbered), pairs, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)


def characters(numbered: Mapping[str, int], control: Sequence[str] = (), unknown: str = "") -> Tokenizer:
    """A token a character; those that have no id are left out, or become the token `unknown` of `numbered`.

    `control` spells control tokens of `numbered`.
    """
    model = models.BPE(dict(numbered), [], unk_token=unknown or None)  # no merges: what it splits stays split
    tokenizer = Tokenizer(model)
    if not unknown:
        known = "".join(f"\\x{{{ord(c):X}}}" for c in numbered if len(c) == 1)
        tokenizer.normalizer = normalizers.Replace(Regex(f"[^{known}]"), "")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def words(numbered: Mapping[str, int], filters: str = KERAS_FILTERS, control: Sequence[str] = ()) -> Tokenizer:
    """A token a word, in lower case and without the characters of `filters`; words that have no id are left out."""
    spelled = {token if token in control else SPACE + token: i for token, i in numbered.items()}
    tokenizer = Tokenizer(models.BPE(spelled, [], ignore_merges=True))  # a word is itself, or pieces that have no id
    filtered = "".join(f"\\x{{{ord(c):X}}}" for c in filters)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(f"[{filtered}]"), " ")]
    )
    marked = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marked])
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
