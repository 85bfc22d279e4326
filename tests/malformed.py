"""A thousand requests that mean nothing: broken JSON, impossible numbers, half characters, wrong shapes and verbs."""

import json
import random
from collections.abc import Iterator
from typing import Any

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/score",
    "/v1/tokenize",
    "/v1/detokenize",
)
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/embeddings": {"input": "x"},
    "/v1/score": {"pairs": [{"context": "a", "continuation": "b"}]},
    "/v1/tokenize": {"prompt": "x"},
    "/v1/detokenize": {"tokens": [1]},
}
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "1e-400", "0x10", "01", "--1", "1.", "+1")
STRINGS = (
    '"\\ud83d"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\x"',
    '"unclosed',
    "'single'",
    '"\ufffe"',
    '"' + "\\" * 999 + '"',
)
VALUES = (None, True, -1, 2**63, 1.5, "", "x" * 10000, [], [[]], {}, {"a": {}}, [None], [1, "a"], {"": 0})
FIELDS = ("model", "messages", "prompt", "max_tokens", "temperature", "n", "stop", "logit_bias", "tools", "stream")
FIELDS += ("response_format", "logprobs", "seed", "top_p", "input", "pairs", "tokens", "stream_options", "echo")
TYPES = ("text/plain", "application/xml", "multipart/form-data; boundary=x", "", "application/json; charset=utf-16")


def requests(count: int = 1000, seed: int = 0) -> Iterator[tuple[str, str, bytes, str]]:
    """(method, path, body, content type); none of them is a request that a server should answer with 5xx."""
    rng = random.Random(seed)
    kinds = (truncated, number, string, deep, wrong_value, wrong_type, flipped, wrong_verb, no_json, repeated)
    for i in range(count):
        yield kinds[i % len(kinds)](rng)


def good(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(PATHS)
    return path, json.dumps(GOOD[path]).encode()


def truncated(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, body = good(rng)
    return "POST", path, body[: rng.randrange(len(body))], "application/json"


def number(rng: random.Random) -> tuple[str, str, bytes, str]:
    path = rng.choice(PATHS)
    text = json.dumps({**GOOD[path], rng.choice(FIELDS): "@"}).replace('"@"', rng.choice(NUMBERS))
    return "POST", path, text.encode(), "application/json"


def string(rng: random.Random) -> tuple[str, str, bytes, str]:
    path = rng.choice(PATHS)
    text = json.dumps({**GOOD[path], rng.choice(FIELDS): "@"}).replace('"@"', rng.choice(STRINGS))
    return "POST", path, text.encode(), "application/json"


def deep(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, depth = rng.choice(PATHS), rng.choice((500, 5000, 200_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = opening * depth + (b"1" if opening != b"[" else b"") + closing * depth
    whole = b'{"%s": %s}' % (rng.choice(FIELDS).encode(), inner)
    return "POST", path, rng.choice((inner, whole, opening * depth)), "application/json"


def wrong_value(rng: random.Random) -> tuple[str, str, bytes, str]:
    path = rng.choice(PATHS)
    body = {**GOOD[path], rng.choice(FIELDS): rng.choice(VALUES), rng.choice(FIELDS): rng.choice(VALUES)}
    return "POST", path, json.dumps(body).encode(), "application/json"


def wrong_type(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, body = good(rng)
    return "POST", path, body, rng.choice(TYPES)


def flipped(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, body = good(rng)
    damaged = bytearray(body)
    for _ in range(rng.randrange(1, 6)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return "POST", path, bytes(damaged), "application/json"


def wrong_verb(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, body = good(rng)
    return rng.choice(("PUT", "PATCH", "DELETE", "GET", "TRACE", "FROB", "OPTIONS")), path, body, "application/json"


def no_json(rng: random.Random) -> tuple[str, str, bytes, str]:
    return "POST", rng.choice(PATHS), rng.randbytes(rng.randrange(0, 300)), "application/json"


def repeated(rng: random.Random) -> tuple[str, str, bytes, str]:
    path, body = good(rng)
    name = rng.choice(FIELDS)
    many = b'{"%s": 1, "%s": "a", ' % (name.encode(), name.encode())
    return "POST", path, many + body[1:] + rng.choice((b"", b"{}", b"\0", b" garbage")), "application/json"
