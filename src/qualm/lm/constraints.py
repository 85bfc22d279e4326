"""An answer held to a shape: before each token, which ones may come next. By llguidance, which keeps a parser of the
grammar and walks the vocabulary's bytes through it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from torch import Tensor

from qualm.errors import UsageError
from qualm.lm import _compiling
from qualm.lm.sampling import Shape
from qualm.lm.shapes import KEPT, NAMES, check, grammar
from qualm.tokens.detokenizer import HELD
from qualm.tokens.pieces import first_pieces, pieces
from qualm.tokens.tokenizer import Tokens

__all__ = ["Constraint", "Setting", "check", "constrain"]

FORCED = 64  # bytes of what must come that are cut into tokens ahead
UNSPELLED = "the vocabulary cannot spell what must come"

vocabularies: WeakKeyDictionary[Tokens, dict[tuple[bool, str], "Vocabulary"]] = WeakKeyDictionary()


class Vocabulary:
    """What each id writes, as the engine wants it.

    `first`: no text stands before the answer, so that some ids write something else there. `lead` is what is taken off
    the answer's beginning, if it is there.
    """

    def __init__(self, tokens: Tokens, first: bool, lead: str):
        inner = pieces(tokens)
        self.size = self.end = len(inner)  # the id after the last stands for the end
        begun = first_pieces(tokens, inner) if first else {}
        self.silent: list[int] = []  # write nothing at the beginning
        self.barred: list[int] = []  # write a part of the lead at the beginning
        changed = dict(begun)
        for i, piece in enumerate(inner if lead else ()):
            piece = begun.get(i, piece)
            if piece and lead.encode() != piece and lead.encode().startswith(piece):
                self.barred.append(i)
            elif piece.startswith(lead.encode()):
                changed[i] = piece[len(lead.encode()) :]
        self.silent = [i for i, piece in changed.items() if not piece]
        other = {i: piece for i, piece in changed.items() if piece}
        self.changed = np.array(list(other), dtype=np.int64)
        self.place = {i: self.size + 1 + n for n, i in enumerate(other)}
        self.spelled = {piece: i for i, piece in enumerate(inner) if piece}
        self.longest = max(map(len, self.spelled), default=1)
        self.tokens: Sequence[bytes] = [*inner, b"</s>", *other.values()]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = self.end, None, [self.end]
        self.engine = LLTokenizer(TokenizerWrapper(self))
        self.compiled = lru_cache(KEPT)(self._compile)

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids that write a text, the longest first: how the engine cuts what it knows must come."""
        data, ids, at = (text if isinstance(text, bytes) else text.encode())[:FORCED], [], 0
        while at < len(data):
            sizes = range(min(self.longest, len(data) - at), 0, -1)
            size = next((n for n in sizes if data[at : at + n] in self.spelled), 0)
            if not size:
                break
            ids.append(self.spelled[data[at : at + size]])
            at += size
        return ids

    def _compile(self, made: str) -> LLMatcher:
        return LLMatcher(self.engine, made, log_level=0, limits=_compiling.LIMITS)


def vocabulary(tokens: Tokens, first: bool, lead: str) -> Vocabulary:
    """Made once for a tokenizer. Raises Unsupported if what its ids write hangs on their neighbours."""
    kept = vocabularies.setdefault(tokens, {})
    if (first, lead) not in kept:
        kept[first, lead] = Vocabulary(tokens, first, lead)
    return kept[first, lead]


class Constraint:
    """One answer's shape. `allowed` says what may come, `push` takes what came, `finished` says that nothing may come.

    `whole` is whether the answer, as it stands, has the shape. `why` says what went wrong if it cannot get it any more:
    the engine met a bound of its own, or the vocabulary cannot spell what must come.
    """

    def __init__(self, words: Vocabulary, matcher: LLMatcher, size: int, ends: Iterable[int]):
        self._words, self._matcher, self._opening = words, matcher, True
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._mask = np.zeros(size, dtype=bool)
        self.finished, self.whole, self.why = False, False, ""
        self._look()

    def allowed(self) -> Tensor:
        """(V,) bool; at least one is true unless `finished`."""
        return torch.from_numpy(self._mask)

    def push(self, token: int) -> None:
        if token in self._ends:
            self.finished = True
            return None
        opening, self._opening = self._opening, False
        if opening and token in self._words.silent:
            return self._look()
        place = self._words.place.get(token, token) if opening else token
        if not self._matcher.consume_token(place):
            self.finished, self.whole, self.why = True, False, UNSPELLED
            return None
        return self._look()

    def _look(self) -> None:
        """Reads off the engine what may come next."""
        words = self._words
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        self.whole = self._matcher.is_accepting()
        mask = np.zeros(len(self._mask), dtype=bool)
        room = min(words.size, len(mask))
        mask[:room] = bits[:room]
        if self._opening:
            possible = bits[: words.size].any()
            mask[words.changed] = self._begin(bits)
            mask[words.barred] = False
            mask[words.silent] = possible
        mask[self._ends] = False
        more = bool(mask.any())
        mask[self._ends] = self.whole
        self._mask = mask
        self.finished = not more
        if not more and not self.whole:
            said = self._matcher.get_error()
            spelled = not said or said.startswith("NoExtension")
            self.why = UNSPELLED if spelled else said.split("<state>")[0].strip()

    def _begin(self, bits: np.ndarray) -> np.ndarray:
        """Which of the ids that write something else at the beginning may come.

        Where the engine knows what must come it allows one way to write it; any other that fits is as good here.
        """
        words = self._words
        places = range(words.size + 1, words.size + 1 + len(words.changed))
        forced = self._matcher.compute_ff_bytes()
        if not forced or not len(places):
            return bits[words.size + 1 :][: len(words.changed)]
        fits = [words.tokens[place][:1] == forced[:1] for place in places]
        validate = self._matcher.validate_tokens
        return np.array([fit and validate([place]) == 1 for fit, place in zip(fits, places, strict=True)])


@dataclass(frozen=True)
class Setting:
    """Where an answer is written: over `size` logits, ended by one of `ends`, after the ids `before`. What the chat
    template puts at its beginning, `lead`, is no part of it.
    """

    tokens: Tokens
    size: int
    ends: frozenset[int]
    before: Sequence[int] = ()
    lead: str = ""


def constrain(shape: Shape, setting: Setting) -> Constraint:
    """A shape for one answer.

    Raises UsageError if the shape is refused or this vocabulary cannot write it at all.
    """
    made = grammar(shape)
    tokens, before = setting.tokens, setting.before[-HELD:]
    words = vocabulary(tokens, first=not tokens.decode(before), lead=setting.lead)
    matcher = words.compiled(made)
    if matcher.is_error():
        raise UsageError(matcher.get_error().split("<state>")[0], where=NAMES[shape.kind])
    constraint = Constraint(words, matcher.deep_copy(), setting.size, setting.ends)
    if constraint.why:
        raise UsageError(constraint.why, where=NAMES[shape.kind], then="use a model that spells in bytes")
    return constraint
