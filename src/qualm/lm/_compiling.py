"""A shape compiled on trial, in a process of its own that can be ended. Run by path; knows nothing of this package.

Argument: seconds of processor time to be ended after. Stdin: JSON, a grammar and the schema it came from, if any.
Stdout: "" if an answer can have this shape, else why not.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

try:
    import resource
except ImportError:  # only where there is no such bound: Windows
    resource = None

END, MEMORY = 256, 2**31  # the id after the 256 bytes; bytes of address space
LIMITS = LLParserLimits(step_lexer_fuel=50_000, step_max_items=20_000, max_lexer_states=50_000)  # some ms a step
MESSAGE = 300  # characters of what is said to be wrong
NONE = "no answer can have this shape"


class Bytes:
    """A vocabulary of the 256 bytes and an end."""

    eos_token_id, bos_token_id, special_token_ids = END, None, (END,)
    tokens = (*(bytes([i]) for i in range(END)), b"</s>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def matcher_of_bytes(grammar: str) -> LLMatcher:
    return LLMatcher(LLTokenizer(TokenizerWrapper(Bytes()), slices=[]), grammar, log_level=0, limits=LIMITS)


def fault(grammar: str, schema: Any = None) -> str:
    """What is wrong with a grammar, or with the schema behind it."""
    if schema is not None and not ends(schema):
        return "it requires itself without end, so no answer can be finished"
    matcher = matcher_of_bytes(grammar)
    if matcher.is_error():
        return matcher.get_error() or "it cannot be compiled"
    first = next((i for i, allowed in enumerate(matcher.compute_logit_bias()[:END]) if allowed), None)
    if first is None and matcher.is_accepting():
        return ""
    if first is not None and matcher.consume_token(first):
        matcher.compute_logit_bias()
        if not matcher.is_error():
            return ""
    said = matcher.get_error()
    return NONE if not said or said.startswith("NoExtension") else said.split("<state>")[0]


def ends(schema: Any) -> bool:
    """False if no finite value can satisfy the schema because it requires itself: the least fixed point over its $refs,
    as a grammar's rules are found to produce something.
    """
    known = dict.fromkeys(refs(schema), False)
    changed = True
    while changed:
        changed = False
        for ref, finite in known.items():
            if not finite and finite_one(at(schema, ref), known):
                known[ref] = changed = True
    return finite_one(schema, known)


def refs(node: Any) -> Iterator[str]:
    todo = [node]
    while todo:
        one = todo.pop()
        if isinstance(one, Mapping):
            if isinstance(one.get("$ref"), str):
                yield one["$ref"]
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def at(schema: Any, ref: str) -> Any:
    """What a $ref points to; {} where this cannot tell, which the compiler judges."""
    if not ref.startswith("#"):
        return {}
    for part in ref[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        schema = schema.get(name, {}) if isinstance(schema, Mapping) else {}
    return schema


def finite_one(node: Any, known: Mapping[str, bool]) -> bool:
    """Whether a node has a finite value, given which $refs are known to have one."""
    if not isinstance(node, Mapping):
        return node is not False
    if not known.get(node.get("$ref", ""), True):
        return False
    if not all(finite_one(one, known) for one in listed(node.get("allOf"))):
        return False
    if any(listed(node.get(k)) and not any(finite_one(x, known) for x in node[k]) for k in ("anyOf", "oneOf")):
        return False
    types = node.get("type", "any")
    types = types if isinstance(types, list) else [types]
    if types == ["object"]:
        named, rest = node.get("properties", {}), node.get("additionalProperties", {})
        wanted = [named.get(name, rest) for name in listed(node.get("required"))] if isinstance(named, Mapping) else []
    elif types == ["array"]:
        least = node.get("minItems", 0)
        firsts = listed(node.get("prefixItems"))
        wanted = [*firsts, node.get("items", {})][: least if isinstance(least, int) else 0]
    else:
        wanted = []
    return all(finite_one(one, known) for one in wanted)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


if __name__ == "__main__":
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
    os.write(1, " ".join(fault(*json.load(sys.stdin)).split())[:MESSAGE].encode())
