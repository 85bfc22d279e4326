"""Answers held to 500 schemas, valid and hostile: `python benchmarks/structured.py [MODEL] [--answers 4]`.

Each schema is made from a seed and either refused, with the time that took, or answered several times: by a walk that
draws among the allowed tokens (so that no model's habits hide a hole), and by MODEL, if one is named, greedily. Every
answer that the constraint calls whole is read by Python's json and judged by jsonschema_rs, formats included, which
knows nothing of the engine that wrote it. At the end: what the mask costs a token.
"""

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import jsonschema_rs

import qualm
from qualm.errors import UsageError
from qualm.lm.constraints import Setting, constrain
from qualm.lm.sampling import Sampling, Shape
from qualm.tokens.pieces import pieces
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe

MOST = 600  # tokens of an answer
UNJUDGED = "the judge cannot read the schema"
LIMIT = 2.0  # seconds to refuse or accept
HOSTILE = 0.3  # share of the schemas
CLOSING = (b'"', b"}", b"]", b'"}', b'"]', b'",')
FORMATS = ("date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri", "duration")
PATTERNS = ("^[a-z]{2,5}$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$", r"^\d{3}-\d{4}$", "ab+", "^(yes|no)$", r"[一-龥]{1,3}")
UNSUPPORTED: tuple[dict[str, Any], ...] = (
    {"type": "array", "uniqueItems": True},
    {"type": "array", "contains": {"type": "integer"}},
    {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"minLength": 2}},
    {"type": "object", "propertyNames": {"maxLength": 3}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"type": "object", "unevaluatedProperties": False},
    {"type": "string", "format": "iri-reference-of-doubt"},
    {"type": "string", "pattern": "(?=a)a"},
    {"type": "string", "pattern": r"(a)\1"},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"$dynamicRef": "#x"},
    {"type": "object", "patternProperties": {"^a": {}, "b$": {"type": "null"}}},
)


def scalar(draw: random.Random) -> dict[str, Any]:
    low = draw.randint(-1000, 1000)
    made: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "string"},
        lambda: {"type": "string", "minLength": draw.randint(0, 4), "maxLength": draw.randint(4, 12)},
        lambda: {"type": "string", "pattern": draw.choice(PATTERNS)},
        lambda: {"type": "string", "format": draw.choice(FORMATS)},
        lambda: {"type": "integer"},
        lambda: {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 5000)},
        lambda: {"type": "integer", "exclusiveMinimum": low},
        lambda: {"type": "integer", "multipleOf": draw.choice([2, 5, 7, 60])},
        lambda: {"type": "number", "minimum": low / 8, "maximum": low / 8 + draw.random()},
        lambda: {"type": "number"},
        lambda: {"type": "boolean"},
        lambda: {"type": "null"},
        lambda: {"enum": draw.sample(["red", "绿", 3, None, True, 2.5, "a\nb", 'say "x"', "\\", "é\u0000"], 3)},
        lambda: {"const": draw.choice(["x", 0, -1.5, False, ["a", 1], {"k": [None]}])},
        lambda: {"type": draw.sample(["string", "null", "integer", "boolean"], 2)},
    ]
    return draw.choice(made)()


def schema(draw: random.Random, depth: int = 3) -> dict[str, Any]:
    """One that says what it means, in the keywords that people use."""
    kind = draw.choice(["object", "object", "array", "tuple", "any", "all", "map", "scalar"]) if depth else "scalar"
    inner = lambda: schema(draw, depth - 1)  # noqa: E731
    if kind == "object":
        names = draw.sample(["id", "name", "tags", "价格", "a b", 'q"t', "x/y", "émile", "n"], draw.randint(1, 4))
        made: dict[str, Any] = {"type": "object", "properties": {name: inner() for name in names}}
        made["required"] = draw.sample(names, draw.randint(0, len(names)))
        if draw.random() < 0.7:
            made["additionalProperties"] = False if draw.random() < 0.7 else scalar(draw)
        return made
    if kind == "array":
        least = draw.randint(0, 2)
        return {"type": "array", "items": inner(), "minItems": least, "maxItems": least + draw.randint(0, 3)}
    if kind == "tuple":
        fixed = [scalar(draw) for _ in range(draw.randint(1, 3))]
        return {"type": "array", "prefixItems": fixed, "items": False, "minItems": len(fixed)}
    if kind == "any":
        return {"anyOf": [inner(), scalar(draw)]}
    if kind == "all":
        one = {"type": "object", "properties": {"a": scalar(draw)}, "required": ["a"]}
        return {"allOf": [one, {"type": "object", "properties": {"b": inner()}, "required": ["b"]}]}
    if kind == "map":
        made = {"type": "object", "additionalProperties": inner()}
        return made | draw.choice([{}, {"minProperties": 1}, {"minProperties": 2, "maxProperties": 3}])
    return scalar(draw)


def hostile(draw: random.Random) -> Any:
    """One that hangs, bursts or fools a careless engine, or that no answer can satisfy; as text if it is very deep."""
    size = draw.choice([100, 1000, 20_000])

    def nested(depth: int) -> str:
        around = '{"type": "object", "required": ["a"], "properties": {"a": ', "}}"
        return around[0] * depth + '{"type": "null"}' + around[1] * depth

    node = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}
    options: list[Callable[[], Any]] = [
        lambda: nested(draw.choice([40, 90, 200, 5000])),
        lambda: {"enum": [f"v{i * 7919 % 100_003}" for i in range(5 * size)]},
        lambda: {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(size // 4)}},
        lambda: {"type": "string", "pattern": draw.choice(["(a+)+$", "(a*)*b", "(x+x+)+y", "(a|aa)+$", "(.*a){30}"])},
        lambda: {"type": "string", "pattern": f"(a{{{size}}}){{{size}}}"},
        lambda: {"type": "string", "pattern": "(" * size + ")" * size},
        lambda: {"type": "string", "minLength": size * 100},
        lambda: {"type": "array", "minItems": size * 10, "items": {"type": "integer"}},
        lambda: {"$ref": "#/$defs/node", "$defs": {"node": {**node, "required": ["v"]}}},
        lambda: {"$ref": "#/$defs/node", "$defs": {"node": {**node, "required": ["v", "next"]}}},
        lambda: {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        lambda: {"$ref": draw.choice(["http://example.com/s.json", "#/nowhere", "file:///etc/passwd", "#/%41"])},
        lambda: draw.choice([False, [], 3, {"enum": []}, {"type": "strng"}, {"type": "integer", "minimum": "3"}]),
        lambda: {"type": "integer", "minimum": 5, "maximum": 3},
        lambda: {"type": "object", "required": ["a"], "properties": {"a": False}},
        lambda: {"allOf": [{"type": "string"}, {"type": "integer"}]},
        lambda: {"x-guidance": {"lenient": True}, **draw.choice(UNSUPPORTED)},
        lambda: {"type": "object", "properties": {"k": draw.choice(UNSUPPORTED)}, "required": ["k"]},
        lambda: draw.choice(UNSUPPORTED),
        lambda: {"allOf": [{"anyOf": [{"required": [f"k{i}"]}, {"maxProperties": i}]} for i in range(12)]},
        lambda: {"type": "number", "multipleOf": draw.choice([0.01, 0.1, 1e-30, 1e9 + 7])},
        lambda: {"type": "object", "minProperties": 3, "additionalProperties": {"type": "null"}},
    ]  # fmt: skip
    return draw.choice(options)()


def schemas(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    made = (hostile(draw) if draw.random() < HOSTILE else schema(draw) for _ in range(count))
    return [one if isinstance(one, str) else json.dumps(one) for one in made]


def tokens() -> Tokens:
    """A small vocabulary with the pieces that JSON is made of."""
    draw = random.Random(1)
    texts = [
        json.dumps({"name": "Ann 早上好", "id": draw.randint(0, 999), "tags": [True, None, 1.5]}) for _ in range(300)
    ]
    return train_bpe([*texts, "the quick brown fox jumps over the lazy dog\n" * 20], 800)


class Walk(NamedTuple):
    """An answer drawn among what is allowed; "" if it is whole, else why not; its tokens, and the seconds it took."""

    text: bytes
    why: str
    tokens: int
    seconds: float


def walk(shape: Shape, setting: Setting, spelled: list[bytes], draw: random.Random) -> Walk:
    """In favour of what closes, or no string would ever end."""
    began = time.perf_counter()
    held = constrain(shape, setting)
    written, count = b"", 0
    while not held.finished and count < MOST:
        allowed = held.allowed().nonzero().flatten().tolist()
        ends = [i for i in allowed if i in setting.ends]
        close = [i for i in allowed if spelled[i].strip() in CLOSING]
        close = ends if ends and draw.random() < 0.5 else close
        token = draw.choice(close if close and draw.random() < 0.5 else allowed)
        held.push(token)
        written += b"" if token in setting.ends else spelled[token]
        count += 1
    why = held.why or ("" if held.finished else f"longer than {MOST} tokens")
    return Walk(written, why, count, time.perf_counter() - began)


def judge(made: str, text: str) -> str:
    """ "valid" if a text is JSON and has the schema, else what is wrong, by code that knows nothing of ours."""
    try:
        validator = jsonschema_rs.validator_for(json.loads(made), validate_formats=True)
    except ValueError:
        return UNJUDGED
    try:
        value = json.loads(text, parse_constant=lambda name: 1 / 0, parse_float=Decimal)
    except (ValueError, ZeroDivisionError) as error:
        return f"wrong: not JSON: {error}"
    return "valid" if validator.is_valid(value) else f"wrong: {next(validator.iter_errors(value)).message[:80]}"


def spent() -> float:
    """Seconds of a processor, of this process and of those that it waited for."""
    return sum(os.times()[:4])


def measure(count: int, answers: int, model: str, report: Callable[[str], None] = print) -> Counter[str]:
    """How many schemas were refused in time and how many answered, and of the answers how many hold."""
    found: Counter[str] = Counter()
    vocabulary = tokens()
    setting = Setting(vocabulary, vocabulary.vocab_size, vocabulary.eos_ids)
    spelled = pieces(vocabulary)
    lm = qualm.load(model) if model else None
    slowest, busiest, seconds, written = 0.0, 0.0, 0.0, 0
    for number, made in enumerate(schemas(count)):
        shape = Shape("json", made)
        began, busy = time.perf_counter(), spent()
        try:
            constrain(shape, setting)
            why = ""
        except UsageError as error:
            why = str(error)
        took = time.perf_counter() - began
        slowest, busiest = max(slowest, took), max(busiest, spent() - busy)
        found["schemas"] += 1
        found["later than the limit"] += took > LIMIT
        if why:
            found["refused"] += 1
            continue
        found["answered"] += 1
        for i in range(answers):
            went = walk(shape, setting, spelled, random.Random(f"{number} {i}"))
            seconds, written = seconds + went.seconds, written + went.tokens
            tally(found, "walk", made, went.text.decode("utf-8", "strict" if not went.why else "ignore"), went.why)
        if lm:
            answer = lm.generate(["JSON:\n"], Sampling(max_tokens=96, shape=shape))[0]
            tally(found, "model", made, answer.text, "" if answer.finish == "stop" else answer.finish)
    report(f"slowest to accept or refuse: {slowest:.2f} s, {busiest:.2f} s of a processor")
    report(f"a walk took {1e6 * seconds / max(1, written):.0f} µs a token")
    return found


def tally(found: Counter[str], who: str, made: str, text: str, why: str) -> None:
    """Counts an answer, by why it is not whole or by what the judge says. Raises AssertionError if it is wrong."""
    verdict = f"cut off and said so: {why}" if why else judge(made, text)
    found[f"{who}: {verdict}"] += 1
    assert verdict in ("valid", UNJUDGED) or why, f"{verdict}\n{made[:500]}\n{text[:500]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--schemas", type=int, default=500)
    parser.add_argument("--answers", type=int, default=4)
    asked = parser.parse_args()
    found = measure(asked.schemas, asked.answers, asked.model)
    for name, number in sorted(found.items()):
        print(f"{name}: {number}")


if __name__ == "__main__":
    main()
