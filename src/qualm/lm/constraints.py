"""An answer held to a shape: before each token, which ones may come next. By llguidance, which keeps a parser of the
grammar and walks the vocabulary's bytes through it.

A shape is first compiled on trial in a process of its own, for TIME at most, so that a hostile one can neither hang
nor crash this one. What the compiler does not support is refused, never left out of the account.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from torch import Tensor

from qualm.errors import UsageError
from qualm.lm import _compiling
from qualm.lm._schemas import WHERE, read_schema
from qualm.lm.sampling import Sampling, Shape
from qualm.tokens.detokenizer import HELD
from qualm.tokens.pieces import first_pieces, pieces
from qualm.tokens.tokenizer import Tokens

TIME = 1.2  # seconds that a shape may take to compile on trial, the start of the process included
FORCED = 64  # bytes of what must come that are cut into tokens ahead
LARGEST = 2_000_000  # characters of a shape
KEPT = 64  # compiled shapes held for a vocabulary
GAP = r" |\n {0,16}"  # white space between the parts of a JSON text: at most so much, or a weak model never ends
NAMES = {"json": WHERE, "regex": "the regular expression", "choice": "the choice", "grammar": "the grammar"}
UNSPELLED = "the vocabulary cannot spell what must come"
OBJECT = '{"type": "object"}'  # the shape "json" without a schema

vocabularies: WeakKeyDictionary[Tokens, dict[tuple[bool, str], "Vocabulary"]] = WeakKeyDictionary()


def check(sampling: Sampling) -> None:
    """Raises UsageError if the shape is wrong or impossible, or goes with nothing else that was asked."""
    if sampling.shape is None:
        return
    others = {
        f"beams = {sampling.beams}": sampling.beams > 1,
        f"contrast = {sampling.contrast:g}": sampling.contrast > 0,
        "a stop string": bool(sampling.stop),
        "banned words": bool(sampling.banned),
    }
    for what, given in others.items():
        if given:
            raise UsageError(f"{what} and a shape cannot both be kept", then="leave one of them out")
    grammar(sampling.shape)


@lru_cache(KEPT)
def grammar(shape: Shape) -> str:
    """A shape in llguidance's own language.

    Raises UsageError that names what is not supported, if no answer can have the shape, or if it takes too long.
    """
    where = NAMES[shape.kind]
    if len(shape.text) > LARGEST:
        raise UsageError(f"has {len(shape.text)} characters, more than {LARGEST}", where=where)
    schema = None
    if shape.kind == "json":
        schema = read_schema(shape.text or OBJECT)
        options = {"whitespace_pattern": GAP, "lenient": False, "coerce_one_of": False, "whitespace_flexible": True}
        try:
            made = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        except ValueError as error:
            raise UsageError(str(error), where=where) from error
    elif shape.kind == "regex":
        made = LLMatcher.grammar_from_regex(unanchored(shape.text))
    elif shape.kind == "choice":
        choices = [line for line in shape.text.splitlines() if line]
        if not choices:
            raise UsageError("names nothing to choose from", where=where)
        made = LLMatcher.grammar_from_lark(f"start: {' | '.join(map(json.dumps, choices))}")
    else:
        made = LLMatcher.grammar_from_lark(shape.text)
    if wrong := tried(made, schema):
        raise UsageError(wrong, where=where, then="see docs/shaping.md for what a shape may hold")
    return made


def unanchored(regex: str) -> str:
    """A whole answer is matched, so that ^ and $ around it say nothing; the engine would take them for impossible."""
    regex = regex.removeprefix("^")
    slashes = len(regex) - 1 - len(regex[:-1].rstrip("\\")) if regex.endswith("$") else 1
    return regex if slashes % 2 else regex[:-1]


def tried(made: str, schema: Any) -> str:
    """What is wrong with a grammar, "" if nothing: found by a process that is ended after TIME."""
    command = [sys.executable, "-P", _compiling.__file__]
    try:
        given = json.dumps([made, schema])
        done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8", timeout=TIME, check=False)
    except subprocess.TimeoutExpired:
        return f"takes more than {TIME:g} s to compile"
    if done.returncode:
        return "is more than the compiler can hold"
    return done.stdout


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
