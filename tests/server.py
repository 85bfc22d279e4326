"""A small OpenAI-compatible server over any LM, for tests, which can be told to misbehave; and a toy model to serve."""

import contextlib
import hashlib
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qualm.cases import plain
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.lm.local import Local
from qualm.lm.scoring import logprobs
from qualm.tokens.template import DEFAULT, Template

WORDS = ["the", "a", "of", "and", "to", "is", "was", "in", "on", "cat", "dog", "house", "river", "small", "red", "went"]
HANG = 10.0  # seconds
PIECES = re.compile(rb" ?[A-Za-z]+|.", re.DOTALL)


class Toy(LM):
    """A bigram model over words and single bytes, its odds drawn from hashes. Slow, small and exact."""

    can = frozenset({"generate", "score"})
    vocabulary = sorted({f" {word}".encode() for word in WORDS} | {bytes([b]) for b in range(256)})

    def __init__(self, seed: int = 0):
        self.seed, self.name = seed, f"toy-{seed}"
        self.card = Card("toy", weights=f"toy {seed}")
        self.template = Template(DEFAULT)
        self.asked: list[Any] = []

    def pieces(self, text: str) -> list[bytes]:
        found = []
        for word in PIECES.findall(text.encode()):
            found += [word] if word in self.vocabulary else [bytes([byte]) for byte in word]
        return found

    def next(self, last: bytes) -> dict[bytes, float]:
        """Log-probabilities of every piece after `last`."""
        rng = random.Random(f"{self.seed}/{last!r}")
        readable = [len(piece) > 1 or piece in b" .,;?" for piece in self.vocabulary]
        logits = [rng.gauss(4.0 if good else 0.0, 2.0) for good in readable]
        norm = math.log(sum(map(math.exp, logits)))
        return {piece: logit - norm for piece, logit in zip(self.vocabulary, logits, strict=True)}

    def text(self, prompt) -> str:
        return prompt if isinstance(prompt, str) else self.template.render(prompt, generation=True)

    def score(self, pairs: Sequence[tuple[Any, str]]) -> list[Scored]:
        return [self._score(self.text(context), continuation) for context, continuation in pairs]

    def _score(self, before: str, continuation: str) -> Scored:
        border, at, last, kept = len(before.encode()), 0, b"\n", []
        for piece in self.pieces(before + continuation):
            at += len(piece)
            if at > border:
                kept.append(self.next(last)[piece])
            last = piece
        return Scored(tuple(kept))

    def generate(self, prompts, sampling: Sampling = Sampling()) -> list[Completion]:
        self.asked += prompts
        return [self._generate(self.text(prompt), sampling) for prompt in prompts]

    def _generate(self, text: str, sampling: Sampling) -> Completion:
        before = self.pieces(text)
        rng, out, numbers = random.Random(f"{sampling.seed}/{text}"), [], []
        for _ in range(sampling.max_tokens):
            odds = self.next((before + out or [b"\n"])[-1])
            if sampling.temperature:
                weights = [math.exp(value / sampling.temperature) for value in odds.values()]
                piece = rng.choices(list(odds), weights)[0]
            else:
                piece = max(odds, key=odds.get)
            out.append(piece)
            numbers.append(odds[piece])
            written = b"".join(out).decode(errors="replace")
            ends = [written.index(stop) for stop in sampling.stop if stop in written]
            if ends:
                return self._completion(written[: min(ends)], before, out, "stop", numbers)
        return self._completion(b"".join(out).decode(errors="replace"), before, out, "length", numbers)

    def _completion(self, text, before, out, finish, numbers) -> Completion:
        tokens = [piece.decode(errors="replace") for piece in out]
        return Completion(text, len(before), len(out), finish, tuple(numbers), {"tokens": tokens})

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Characters each piece begins and ends in; the bytes of one character share its span."""
        at, spans, encoded = 0, [], text.encode()
        for piece in self.pieces(text):
            start = len(encoded[:at].decode(errors="ignore"))
            at += len(piece)
            spans.append((start, max(len(encoded[:at].decode(errors="ignore")), start + 1)))
        return spans

    def top(self, text: str, k: int) -> dict[str, float]:
        odds = self.next((self.pieces(text) or [b"\n"])[-1])
        best = sorted(odds, key=odds.get, reverse=True)[:k]
        return {piece.decode(errors="replace"): odds[piece] for piece in best}


def read_tokens(lm: LM, text: str, rendered: bool) -> tuple[list[tuple[int, int]], list[float | None]]:
    """Where a model's tokens lie in a text, and their log-probabilities; a rendered text brings its own start."""
    if not isinstance(lm, Local):
        return lm.spans(text), list(lm.score([("", text)])[0].logprobs)
    ids, spans = lm.tokens.encode_rendered(text) if rendered else lm.tokens.offsets(text)
    start = [] if rendered else list(lm.tokens.start)
    numbers = logprobs(lm.model, [([*start, *ids], max(len(start), 1))], lm.context)[0]
    return spans, [None] * (len(ids) - len(numbers)) + numbers


@dataclass
class Manners:
    """How the server behaves. `failures` are statuses ("reset", "hang" too) given to the next requests, in turn."""

    echo: str = "full"  # "ignored", "refused", "zeros", "nulls", "none", "noise", "drifting", "unstable", "unlikely"
    lists: bool = True
    failures: list[Any] = field(default_factory=list)
    context: int = 10**9  # characters of a prompt
    poison: str = ""  # a prompt with this in it is always answered 500
    retry_after: str = ""
    logprobs: bool = True
    newer: bool = False  # knows max_completion_tokens only
    completions: bool = True
    models: bool = True
    template: bool = True
    cut_stream: bool = False
    key: str = ""


class Service:
    """One LM over HTTP on 127.0.0.1."""

    def __init__(self, lm: LM, manners: Manners):
        self.lm, self.manners = lm, manners
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.lock, self.most, self.now = threading.Lock(), 0, 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                service.enter(self, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.enter(self, body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients may hang up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of all POST requests."""
        return [body for path, body in self.requests if body]

    def enter(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self.lock:
            self.requests.append((handler.path, body))
            self.now += 1
            self.most = max(self.most, self.now)
            failure = self.manners.failures.pop(0) if self.manners.failures else None
        try:
            self.answer(handler, body, failure)
        finally:
            with self.lock:
                self.now -= 1

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], failure: Any) -> None:
        if failure == "reset":
            handler.close_connection = True
            handler.connection.close()
            return None
        if failure == "hang":
            time.sleep(HANG)
            handler.close_connection = True
            return None
        if self.manners.poison and self.manners.poison in str(body):
            failure = 500
        if failure:
            return send(handler, failure, refusal("try again"), self.manners.retry_after)
        if self.manners.key and handler.headers["Authorization"] != f"Bearer {self.manners.key}":
            return send(handler, 401, refusal("no such key"))
        if handler.path == "/v1/models" and self.manners.models:
            return send(handler, 200, {"object": "list", "data": [self.entry()]})
        kinds = {"/v1/chat/completions": self.chat} | (
            {"/v1/completions": self.complete} if self.manners.completions else {}
        )
        if handler.path not in kinds:
            return send(handler, 404, refusal("no such path"))
        if body["model"] != self.lm.name:
            return send(handler, 404, refusal(f"The model `{body['model']}` does not exist."))
        if body.get("logprobs") and not self.manners.logprobs:
            return send(handler, 400, refusal("logprobs are not given here"))
        if len(str(body.get("prompt", body.get("messages")))) > self.manners.context:
            return send(handler, 400, refusal("This model's maximum context length is 40 tokens."))
        if "max_tokens" in body and self.manners.newer:
            return send(handler, 400, refusal("use 'max_completion_tokens' instead of 'max_tokens'"))
        return kinds[handler.path](handler, body)

    def entry(self) -> dict[str, Any]:
        entry = {"id": self.lm.name, "object": "model", "created": int(time.time() * 1000), "owned_by": "tests"}
        entry |= {"fingerprint": self.lm.card.hash, "world": self.lm.card.world}
        if not self.manners.template:
            return entry
        tokens = (
            {f"{name}_token": getattr(self.lm.tokens, name) for name in ("bos", "eos")}
            if isinstance(self.lm, Local)
            else {}
        )
        return {**entry, "chat_template": self.lm.tokens.template if tokens else DEFAULT, **tokens}

    def complete(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        many = isinstance(body["prompt"], list)
        if many and not self.manners.lists:
            return send(handler, 400, refusal("prompt must be a string"))
        if body.get("echo") and self.manners.echo == "refused":
            return send(handler, 400, refusal("Only no echo is supported"))
        prompts = body["prompt"] if many else [body["prompt"]]
        if body.get("stream"):
            return self.stream(handler, prompts[0], body, lambda piece: {"text": piece})
        answers = self.lm.generate(prompts, sampling_of(body))
        echo = body.get("echo") and self.manners.echo != "ignored"
        choices = [
            {
                "index": index,
                "text": prompt + answer.text if echo else answer.text,
                "finish_reason": answer.finish,
                "logprobs": self.logprobs(prompt, answer, body, bool(echo)),
            }
            for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
        return send(handler, 200, {"object": "text_completion", "choices": choices[::-1], "usage": usage_of(answers)})

    def logprobs(self, prompt: str, answer: Completion, body: dict[str, Any], echo: bool) -> dict[str, Any] | None:
        if body.get("logprobs") is None:
            return None
        rendered = not body.get("add_special_tokens", True)
        return self.echoed(prompt, answer, body["logprobs"], rendered) if echo else generated(answer)

    def echoed(self, prompt: str, answer: Completion, k: int, rendered: bool) -> dict[str, Any] | None:
        spans, numbers = read_tokens(self.lm, prompt, rendered)
        manner, count = self.manners.echo, len(numbers)
        if manner == "none":
            return None
        changes: dict[str, Callable[[int], float | None]] = {
            "zeros": lambda i: 0.0,
            "nulls": lambda i: None,
            "noise": lambda i: -20 * unit(prompt, i),
            "unstable": lambda i: numbers[i] and numbers[i] - random.random(),
            "unlikely": lambda i: -1.0,
        }
        if manner in changes:
            change = changes[manner]
            numbers = [change(i) for i in range(count)]
        tokens = [whole(prompt, spans, i) for i in range(count)]
        top = [self.lm.top(prompt[: span[0]], k) for span in spans] if hasattr(self.lm, "top") else None
        after = generated(answer)
        offsets = [span[0] for span in spans]
        if manner == "drifting":  # as servers do that sum the lengths of tokens, a broken character's parts included
            offsets = [sum(map(len, tokens[:i])) for i in range(count)]
        if top is not None and answer.tokens:
            top.append(self.lm.top(prompt, k))
        return {
            "tokens": [*tokens, *after["tokens"]],
            "token_logprobs": [*numbers, *after["token_logprobs"]],
            "text_offset": [*offsets, *(len(prompt) + offset for offset in after["text_offset"])],
            "top_logprobs": top,
        }

    def chat(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body.get("stream"):
            return self.stream(handler, body["messages"], body, lambda piece: {"delta": {"content": piece}})
        answer = self.lm.generate([body["messages"]], sampling_of(body))[0]
        pieces = generated(answer)
        content = [
            {"token": token, "logprob": number}
            for token, number in zip(pieces["tokens"], pieces["token_logprobs"], strict=True)
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text},
            "finish_reason": answer.finish,
            "logprobs": {"content": content} if body.get("logprobs") else None,
        }
        return send(handler, 200, {"object": "chat.completion", "choices": [choice], "usage": usage_of([answer])})

    def stream(self, handler: BaseHTTPRequestHandler, prompt: Any, body: dict[str, Any], wrap: Callable) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        text = self.lm.generate([prompt], sampling_of(body))[0].text
        pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
        handler.wfile.write(b": a comment\n\n")
        for piece in pieces[: len(pieces) // 2 if self.manners.cut_stream else None]:
            event = {"choices": [{"index": 0, "finish_reason": None, **wrap(piece)}]}
            handler.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            handler.wfile.flush()
        if not self.manners.cut_stream:
            handler.wfile.write(b"data: [DONE]\n\n")


@contextlib.contextmanager
def served(lm: LM, **manners: Any) -> Iterator[Service]:
    """Serve a model for the length of a with-block."""
    service = Service(lm, Manners(**manners))
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.server.shutdown()
        service.server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, value: Any, retry_after: str = "") -> None:
    data = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    if retry_after:
        handler.send_header("Retry-After", retry_after)
    handler.end_headers()
    handler.wfile.write(data)


def refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def sampling_of(body: dict[str, Any]) -> Sampling:
    names = ("temperature", "top_p", "top_k", "min_p", "seed")
    given = {name: body[name] for name in names if name in body}
    most = body.get("max_tokens", body.get("max_completion_tokens", 16))
    return Sampling(max_tokens=most, stop=tuple(body.get("stop", ())), **given)


def usage_of(answers: Sequence[Completion]) -> dict[str, int]:
    prompt, written = sum(a.prompt_tokens for a in answers), sum(a.tokens for a in answers)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def generated(answer: Completion) -> dict[str, Any]:
    """The legacy shape for what was generated; a model that does not tell its tokens has all text in the first."""
    count = len(answer.logprobs)
    tokens = list(answer.notes.get("tokens", ([answer.text] + [""] * count)[:count]))
    offsets = [sum(map(len, tokens[:i])) for i in range(count)]
    return {"tokens": tokens, "token_logprobs": list(answer.logprobs), "text_offset": offsets, "top_logprobs": None}


def whole(text: str, spans: list[tuple[int, int]], index: int) -> str:
    """A token's text; a replacement character for a part of a character, as servers send it."""
    shared = [i for i, span in enumerate(spans) if span[0] < spans[index][1] and spans[index][0] < span[1]]
    return text[slice(*spans[index])] if len(shared) == 1 else "\ufffd"


def unit(text: str, number: int) -> float:
    """A number in 0..1 from a hash."""
    return int.from_bytes(hashlib.blake2b(f"{number}/{plain(text)}".encode(), digest_size=8).digest()) / 2**64
