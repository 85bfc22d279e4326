"""Two texts in one row, as an encoder's tokenizer frames them: [CLS] first [SEP] second [SEP], say."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer


class Framed(NamedTuple):
    """Ids of two texts in one row, a segment (0 or 1) for each id, and where the second text's ids begin."""

    ids: list[int]
    segments: list[int]
    at: int


def join(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int]) -> Framed:
    """The ids of two texts, in the frame and with the segments that the tokenizer gives a pair."""
    made = tokenizer.encode("a", "b", add_special_tokens=True)
    of, kinds = made.sequence_ids, made.type_ids
    begin, end = of.index(0), len(of) - of[::-1].index(0)
    at, last = of.index(1), len(of) - of[::-1].index(1)
    ids = [*made.ids[:begin], *first, *made.ids[end:at], *second, *made.ids[last:]]
    ones = [kinds[begin]] * len(first), [kinds[at]] * len(second)
    segments = [*kinds[:begin], *ones[0], *kinds[end:at], *ones[1], *kinds[last:]]
    return Framed(ids, segments, begin + len(first) + at - end)
