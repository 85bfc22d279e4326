"""What the tests of the server share: a model that writes slowly, token by token, and can be told to fail; clients."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from qualm.cases import Prompt, plain
from qualm.errors import TooLong
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.lm.batch import Batch, Delta, Token

WORDS = ("one", "two", "three", "four", "五", "🙂", "seven", "eight")


class Fault(BaseException):
    """As what a native library raises when it panics: no Exception."""


class Counter(LM):
    """Says the number of each token it writes, a token a step, `pause` seconds a step, for as long as it is asked to.

    A prompt that holds "join fault", "step fault", "much" or "long" makes it fail there. `steps` counts its steps,
    `most` the most requests that ran at once, `written` the tokens of each prompt. It writes at most `room` tokens.
    """

    can = frozenset({"generate", "score"})

    def __init__(self, pause: float = 0.0, name: str = "counter", room: int = 10**9):
        self.name, self.pause, self.room, self.card = name, pause, room, Card("counter", weights=name)
        self.steps, self.most = 0, 0
        self.written: dict[str, int] = {}
        self.hold = threading.Event()  # while it is cleared, no step ends
        self.hold.set()

    def generate(self, prompts, sampling: Sampling = Sampling()) -> list[Completion]:
        return [self.whole(plain(prompt), sampling) for prompt in prompts]

    def whole(self, text: str, sampling: Sampling) -> Completion:
        told = [self.token(text, i, sampling) for i in range(sampling.max_tokens)]
        words = "".join(token.text for token in told)
        return Completion(words, len(text), len(told), "length", tuple(t.logprob for t in told))

    def token(self, text: str, number: int, sampling: Sampling) -> Token:
        word = f" {WORDS[(len(text) + number + sampling.seed % 7) % len(WORDS)]}"
        top = tuple((f" {other}", -0.5 - i) for i, other in enumerate(WORDS[: sampling.alternatives]))
        return Token(word, -0.25, word.encode(), number, top)

    def score(self, pairs) -> list[Scored]:
        return [Scored(tuple(-0.1 * i for i in range(len(text.split())))) for _, text in pairs]

    def batch(self, rows: int = 32, slots: int = 16384) -> Batch:
        return Counting(self, rows, slots)


class Counting(Batch):
    def __init__(self, lm: Counter, rows: int, slots: int):
        self.lm, self.rows, self.slots, self.next = lm, rows, slots, 0
        self.asked: dict[int, tuple[str, Sampling]] = {}
        self.done: dict[int, int] = {}

    def join(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        text = plain(prompt)
        if "join fault" in text:
            raise Fault("on joining")
        if "much" in text:
            torch.empty(2**60)
        if "long" in text:
            raise TooLong("the prompt has 999 tokens and counter can look at 10", then="shorten the prompt")
        self.next += 1
        self.asked[self.next] = (text, replace(sampling, max_tokens=min(sampling.max_tokens, self.lm.room)))
        return self.next

    def leave(self, ticket: int) -> None:
        self.asked.pop(ticket, None)
        self.done.pop(ticket, None)

    def step(self) -> dict[int, Delta]:
        time.sleep(self.lm.pause)
        self.lm.hold.wait()
        for ticket in list(self.asked)[: self.rows]:
            self.done.setdefault(ticket, 0)
        self.lm.steps, self.lm.most = self.lm.steps + 1, max(self.lm.most, len(self.done))
        return {ticket: self.one(ticket) for ticket in list(self.done)}

    def one(self, ticket: int) -> Delta:
        (text, sampling), number = self.asked[ticket], self.done[ticket]
        if "step fault" in text and number == 2:
            raise Fault("in a step")
        token = self.lm.token(text, number, sampling)
        self.done[ticket] = number + 1
        self.lm.written[text] = self.lm.written.get(text, 0) + 1
        if number + 1 < sampling.max_tokens:
            return Delta(token.text, (token,))
        self.leave(ticket)
        return Delta(token.text, (token,), self.lm.whole(text, sampling))

    @property
    def running(self) -> int:
        return len(self.done)

    @property
    def waiting(self) -> int:
        return len(self.asked) - len(self.done)

    @property
    def held(self) -> int:
        return 10 * len(self.done)


class Client:
    """Requests to one server, each over a connection of its own."""

    def __init__(self, running: Any, key: str = ""):
        self.host, self.port, self.key = running.host, running.port, key

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers in lower case, and the body: JSON read, the rest as text."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        told = {"content-type": "application/json"} if body is not None else {}
        told |= {"authorization": f"Bearer {self.key}"} if self.key else {}
        with contextlib.closing(connection):
            connection.request(method, path, data, told | {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(text) if "json" in found.get("content-type", "") else text

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.ask("POST", path, body, **headers)

    def chat(self, text: str = "hi", **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})

    def raw(self, data: bytes, timeout: float = 10.0) -> bytes:
        """All that comes back for these bytes, until the server hangs up or is silent."""
        with self.wire(timeout) as wire:
            with contextlib.suppress(ConnectionError):
                wire.sendall(data)
            return drained(wire)

    def wire(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def open_stream(self, text: str, **more: Any) -> socket.socket:
        """A connection on which a stream has begun."""
        wire = self.wire()
        wire.sendall(request("/v1/chat/completions", chat_body(text, stream=True, **more), "connection: close"))
        return wire


def drained(wire: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while piece := wire.recv(65536):
            found += piece
    return found


def chat_body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def request(path: str, body: Any, *headers: str) -> bytes:
    """A POST as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


def events(text: str) -> list[Any]:
    """The events of a stream, "[DONE]" as it stands, comments left out."""
    found = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in found]


def until(true: Any, seconds: float = 10.0) -> float:
    """Wait for something to become true; how long that took. Fails after `seconds`."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, "it did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - started


def shape_of(answer: Any) -> set[str]:
    """The fields of a refusal in OpenAI's shape."""
    return set(answer["error"])


@contextlib.contextmanager
def held(lm: Counter) -> Iterator[None]:
    """Steps of the model wait for the end of the block."""
    lm.hold.clear()
    try:
        yield
    finally:
        lm.hold.set()
