"""Shapes of answers: read, compiled on trial, refused with the reason. Knows no vocabulary and no model.

A shape is compiled in a process of its own, for TIME at most, so that a hostile one can neither hang nor crash this
one. That is processor time, so that a busy machine refuses what an idle one takes only after PATIENCE. What the
compiler does not support is refused, never left out of the account.
"""

import json
import signal
import subprocess
import sys
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from qualm.errors import UsageError
from qualm.lm import _compiling
from qualm.lm._schemas import WHERE, read_schema
from qualm.lm.sampling import Sampling, Shape

TIME, PATIENCE = 1.0, 8.0  # seconds that a shape may take to compile: of a processor, and on the clock
LARGEST = 2_000_000  # characters of a shape
KEPT = 64  # shapes held
GAP = r" |\n {0,16}"  # white space between the parts of a JSON text: at most so much, or a weak model never ends
NAMES = {"json": WHERE, "regex": "the regular expression", "choice": "the choice", "grammar": "the grammar"}
OBJECT = '{"type": "object"}'  # the shape "json" without a schema


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
    command, given = [sys.executable, "-P", _compiling.__file__, str(TIME)], json.dumps([made, schema]).encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"takes more than {PATIENCE:g} s to compile on this busy machine"
    if done.returncode == -signal.SIGPROF:
        return f"takes more than {TIME:g} s to compile"
    if done.returncode:
        return "is more than the compiler can hold"
    return done.stdout.decode()


def fits(shape: Shape, text: str) -> bool:
    """Whether a text, whoever wrote it, has the shape. JSON need only be JSON: others order the keys of an object in
    another way.
    """
    if shape.kind == "json":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True
    matcher = _compiling.matcher_of_bytes(grammar(shape))
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()
