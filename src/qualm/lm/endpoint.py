"""Any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a hosted API) as a model.

Text is continued by /completions, messages are answered by /chat/completions. Texts are scored by /completions
with `echo`, if checks show that the server really returns their log-probabilities.

A server of ours (`qualm serve`) says in its /models entry what its model can do, under "qualm", and is asked for it
directly: /score takes the very pairs that `score` does, so that an audit through it reads what one beside it would.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from qualm.errors import QualmError, TooLong, Unsupported, UsageError
from qualm.files import hash_json
from qualm.lm import echo
from qualm.lm.base import LM, Card, Completion, Prompt, Sampling, Scored
from qualm.lm.requests import fields, plain
from qualm.lm.sampling import Shape
from qualm.lm.shapes import NAMES as SHAPES
from qualm.lm.shapes import check, fits
from qualm.lm.wire import Json, Lost, Refused, Wire
from qualm.tokens.template import Template

NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")  # a /models entry may say them, for its template
TOP = 5  # likeliest tokens asked for in the checks
TOO_LONG = re.compile(r"context[ _]?(length|size|window)|`inputs` tokens|(prompt|input) is too long", re.I)
IDENTITY = ("id", "root", "owned_by", "max_model_len", "fingerprint", "meta", "chat_template", "qualm")  # of an entry
OURS = frozenset({"generate", "score", "embed"})  # what a server of ours is asked for directly
AT_ONCE = 32  # pairs or texts in one such request

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Text:
    """A text to score from character `border` on; `rendered` by a chat template, or plain."""

    whole: str
    border: int
    rendered: bool


class Endpoint(LM):
    """The model `model` behind the base address `url` ("http://127.0.0.1:8000/v1"), `workers` requests at a time.

    If `model` is empty, the only one served is meant. An endpoint is what it says it is: the hash of its card
    covers the address, the name and what /models says of it, and cannot see weights that change behind those.

    A prompt that gets no answer within the bounded tries, or that the server refuses as too long for the context,
    becomes a Completion with finish "unread" (a Scored of one NaN) and the rest of its batch goes on. Any other
    refusal (4xx) raises QualmError with the server's message, a server that is down Unreachable. `logprobs` of a
    Completion are as the server reports them.
    """

    def __init__(
        self, url: str, model: str = "", key: str = "", workers: int = 8, timeout: float = 60.0, retries: int = 4
    ):
        self._wire = Wire(url, key=key, timeout=timeout, retries=retries)
        self.url, self.workers = self._wire.url, workers
        self._named = model
        self._unknown: set[str] = set()  # fields that this server turned out to refuse

    @cached_property
    def _served(self) -> list[Json]:
        """What /models lists; nothing where there is no such list."""
        try:
            listed = self._wire.get("/models").get("data")
        except Refused as refused:
            if refused.status in (401, 403):
                raise
            return []
        return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []

    @cached_property
    def name(self) -> str:  # pyrefly: ignore[bad-override]  # asked of the server when first needed
        if self._named:
            return self._named
        names = [str(entry.get("id")) for entry in self._served]
        if len(names) != 1:
            known = f"name one of: {', '.join(names[:8])}" if names else "add its name: URL#NAME"
            raise UsageError(f"the server offers {len(names)} models", where=self.url, then=known)
        return names[0]

    @cached_property
    def _entry(self) -> Json:
        return next((entry for entry in self._served if entry.get("id") == self.name), {})

    @cached_property
    def card(self) -> Card:  # pyrefly: ignore[bad-override]
        meta, world = self._entry.get("meta"), self._entry.get("world")
        meta = meta if isinstance(meta, Mapping) else {}
        said = {name: self._entry[name] for name in IDENTITY if name in self._entry}
        return Card(
            family="endpoint",
            parameters=int(meta.get("n_params") or 0),
            bytes=int(meta.get("size") or 0),
            weights=hash_json([self.url, self.name, said]),
            world=world if isinstance(world, Mapping) else None,
            mends=tuple(map(str, self._ours.get("mends") or ())),
            scoring=str(self._ours.get("scoring") or ""),
        )

    @property
    def _ours(self) -> Json:
        """What a server of ours says of its model; {} for any other."""
        said = self._entry.get("qualm")
        return said if isinstance(said, Mapping) and isinstance(said.get("can"), list) else {}

    @cached_property
    def _lack(self) -> str:
        if self._ours:
            return "" if "score" in self._ours["can"] else "serves a model that scores no texts"
        return echo.missing(self._choices)

    def check(self) -> str:
        """What this server lacks for scoring texts, in words; "" if it can. Asked once, in at most 12 requests."""
        return self._lack

    @property
    def can(self) -> frozenset[str]:  # pyrefly: ignore[bad-override]
        if self._ours:
            return OURS & frozenset(map(str, self._ours["can"]))
        return frozenset({"generate"} if self._lack else {"generate", "score"})

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        return self._each(lambda prompt: self._complete(prompt, sampling), prompts)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Messages are scored only if the server says its template ("chat_template" in its /models entry, with the
        tokens it names); a marker of the template that stands in a message then counts as a marker.

        The first token of a text that nothing stands before is left out if the server gives it no number.
        """
        if self._lack:
            raise Unsupported(f"{self._lack}; its scores would mean nothing", where=f"{self.url}#{self.name}")
        if self._ours:
            portions = [pairs[at : at + AT_ONCE] for at in range(0, len(pairs), AT_ONCE)]
            return [scored for some in self._each(self._score_ours, portions) for scored in some]
        return self._each(self._score, [self._text(context, continuation) for context, continuation in pairs])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if "embed" not in self.can:
            raise self.cannot("embed texts")
        portions = [list(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]
        rows = [row for some in self._each(self._embedded, portions) for row in some]
        return np.array(rows, dtype=np.float32).reshape(len(texts), -1)

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        body = {**self._body(prompt, sampling), "stream": True}
        del body["logprobs"]
        events = self._asking(lambda sent: self._wire.events(_path(prompt), sent), body)
        told = ""
        for piece in _until(map(_piece, events), sampling.stop):
            told += piece
            yield piece
        if sampling.shape:
            self._check(sampling.shape, told)

    def _check(self, shape: Shape, text: str) -> None:
        """Raises Unsupported if an answer has not the shape that was asked for: many servers pass over what they do not
        know."""
        if not fits(shape, text):
            raise Unsupported(f"the answer is not in the shape of {SHAPES[shape.kind]}", where=self.url)

    def _each(self, ask: Callable[[T], Answer], things: Sequence[T]) -> list[Answer]:
        """In order, `workers` at a time; on the first error what has not begun is not asked."""
        assert self.name  # asked of the server before the threads need it
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                return list(pool.map(ask, things))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        try:
            body = self._body(prompt, sampling)
            answer = self._asking(lambda sent: self._wire.post(_path(prompt), sent), body)
        except (Lost, TooLong) as error:
            return Completion.lost(str(error))
        choice, usage = _choice(answer), answer.get("usage") or {}
        message = choice.get("message")
        raw = (message.get("content") if isinstance(message, Mapping) else choice.get("text")) or ""
        text = _cut(raw, sampling.stop)
        tokens, logprobs = _generated(choice)
        if len(text) < len(raw):
            logprobs = _kept(tokens, logprobs, len(text)) if "".join(tokens) == raw else ()
        said = choice.get("finish_reason")
        finish = "length" if said == "length" and len(text) == len(raw) else "stop"
        if sampling.shape and finish == "stop":
            self._check(sampling.shape, text)
        ours = choice.get("qualm")
        notes = dict(ours) if isinstance(ours, Mapping) else {}
        logprobs = tuple(map(float, notes.pop("logprobs", logprobs)))
        notes |= {} if said in ("stop", "length") else {"finish_reason": said}
        prompt_tokens, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        return Completion(text, prompt_tokens, written, finish, logprobs, notes)

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        if sampling.beams > 1 and not self._ours:
            raise self.cannot("search with beams")
        check(sampling)
        asked = (
            {"prompt": prompt, "logprobs": 1}
            if isinstance(prompt, str)
            else {"messages": plain(prompt), "logprobs": True}
        )
        return {"model": self.name, **asked, **fields(sampling)}

    def _asking(self, ask: Callable[[Json], Answer], body: Json) -> Answer:
        """Ask; without log-probabilities or with the newer name of `max_tokens` if the server insists.

        Says what a 404 means: UsageError if there is no such model, Unsupported if no such way of asking.
        """
        for _ in range(3):
            sent = {field: value for field, value in body.items() if field not in self._unknown}
            if "max_tokens" in self._unknown:
                sent["max_completion_tokens"] = body["max_tokens"]
            try:
                return ask(sent)
            except Refused as refused:
                word = {"logprobs": "logprobs", "max_tokens": "max_completion_tokens"}
                new = {field for field in word if field in sent and word[field] in refused.message}
                if refused.status in (404, 405):
                    raise self._not_there(refused) from refused
                if is_too_long(refused):
                    raise TooLong(refused.what, where=refused.where, then="shorten the prompt") from refused
                if refused.status not in (400, 422) or not new:
                    raise
                self._unknown |= new
        raise AssertionError("two fields can be refused twice at most")

    def _not_there(self, refused: Refused) -> QualmError:
        names = [str(entry.get("id")) for entry in self._served]
        if names and self.name not in names:
            then = f"there are: {', '.join(names[:8])}"
            return UsageError(f"no model {self.name!r} there", where=self.url, then=then)
        return Unsupported(f"cannot be asked this way ({refused.message})", where=refused.where)

    def _choices(self, texts: Sequence[str]) -> list[Json]:
        """Texts echoed with their log-probabilities, and a token more; one request, a choice a text, in order."""
        choices = self._echoed(texts[0] if len(texts) == 1 else list(texts), TOP).get("choices")
        choices = [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []
        return sorted(choices, key=lambda choice: int(choice.get("index") or 0))

    def _echoed(self, text: str | list[str], top: int, extra: Json | None = None) -> Json:
        body = {"model": self.name, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": top}
        return self._wire.post("/completions", {**body, **(extra or {})})

    def _score(self, text: Text) -> Scored:
        if text.border == len(text.whole):
            return Scored(())
        try:
            scored = self._echo(text.whole, text.rendered)
            border = scored.border(text.border) if text.border else 0
            if border is None:
                border = echo.common(self._echo(text.whole[: text.border], text.rendered).tokens, scored.tokens)
        except (Lost, TooLong) as error:
            return Scored.lost(str(error))
        return Scored(scored.after(border) or (math.nan,))

    def _score_ours(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        sent = [{"context": plain(context), "continuation": continuation} for context, continuation in pairs]
        try:
            answer = self._wire.post("/score", {"model": self.name, "pairs": sent})
        except Lost as error:
            return [Scored.lost(str(error))] * len(pairs)
        found = [(each.get("logprobs"), str(each.get("why") or "")) for each in _listed(answer, len(pairs))]
        return [Scored.lost(why) if numbers is None else Scored(tuple(numbers), why) for numbers, why in found]

    def _embedded(self, texts: list[str]) -> list[list[float]]:
        answer = self._wire.post("/embeddings", {"model": self.name, "input": texts})
        return [list(each["embedding"]) for each in _listed(answer, len(texts))]

    def _echo(self, text: str, rendered: bool) -> echo.Echo:
        # The template puts the start of the document itself.
        try:
            answer = self._echoed(text, 1, {"add_special_tokens": False} if rendered else None)
        except Refused as refused:
            if is_too_long(refused):
                raise TooLong(refused.what, where=refused.where) from refused
            raise
        return echo.read(text, _choice(answer), (answer.get("usage") or {}).get("completion_tokens"))

    @cached_property
    def _template(self) -> Template | None:
        source = self._entry.get("chat_template")
        return Template(source, f"{self.url}/models") if isinstance(source, str) else None

    def _text(self, context: Prompt, continuation: str) -> Text:
        """Context and continuation as one text; after messages, up to the end of what the assistant says."""
        if isinstance(context, str):
            return Text(context + continuation, len(context), False)
        if self._template is None:
            raise Unsupported(
                "does not say its chat template, so what follows messages cannot be scored", where=self.url
            )
        names = {name: self._entry[name] for name in NAMES if isinstance(self._entry.get(name), str)}
        asked = self._template.render(context, generation=True, **names)
        answer = {"role": "assistant", "content": continuation}
        answered = self._template.render([*context, answer], generation=False, **names)
        at = answered.find(continuation, len(asked)) if answered.startswith(asked) else -1
        return (
            Text(answered[: at + len(continuation)], at, True)
            if at >= 0
            else Text(asked + continuation, len(asked), True)
        )


def is_too_long(refused: Refused) -> bool:
    """Whether a server says that what it was sent does not fit into its model's context, in the words in use."""
    return refused.status in (400, 413, 422) and TOO_LONG.search(refused.message) is not None


def _listed(answer: Json, count: int) -> list[Json]:
    """The entries of a list, in order. Raises QualmError if there are not `count`."""
    data = answer.get("data")
    if not isinstance(data, list) or len(data) != count or not all(isinstance(each, Mapping) for each in data):
        raise QualmError(f"the server did not answer {count} entries: {str(answer)[:80]}")
    return sorted(data, key=lambda each: int(each.get("index") or 0))


def _path(prompt: Prompt) -> str:
    return "/completions" if isinstance(prompt, str) else "/chat/completions"


def _choice(answer: Json) -> Json:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise QualmError(f"the server answered without choices: {str(answer)[:80]}", then="is it OpenAI-compatible?")
    return choices[0]


def _generated(choice: Json) -> tuple[list[str], tuple[float, ...]]:
    """Tokens and log-probabilities of what was generated, in either shape in use; () unless all are numbers."""
    given = choice.get("logprobs") or {}
    content = given.get("content")
    if isinstance(content, list):
        tokens, numbers = [entry.get("token") for entry in content], [entry.get("logprob") for entry in content]
    else:
        tokens, numbers = given.get("tokens") or [], given.get("token_logprobs") or []
    good = all(isinstance(number, float | int) and number <= 0 for number in numbers) and len(tokens) == len(numbers)
    return ([str(token) for token in tokens], tuple(map(float, numbers))) if good else ([], ())


def _kept(tokens: Sequence[str], logprobs: tuple[float, ...], length: int) -> tuple[float, ...]:
    """The log-probabilities of the tokens that begin within the first `length` characters."""
    start, kept = 0, 0
    for token in tokens:
        if start >= length:
            break
        start, kept = start + len(token), kept + 1
    return logprobs[:kept]


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop string."""
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def _piece(event: Json) -> str:
    if event.get("error"):
        raise QualmError(f"the server broke off: {event['error']}", then="ask again")
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta")
    return (delta.get("content") if isinstance(delta, Mapping) else choices[0].get("text")) or ""


def _until(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first stop string, of which no part is let out."""
    hold = max((len(stop) for stop in stops), default=1) - 1
    held = ""
    for piece in pieces:
        held += piece
        if len(cut := _cut(held, stops)) < len(held):
            if cut:
                yield cut
            return
        if ready := held[: len(held) - hold]:
            yield ready
            held = held[len(ready) :]
    if held:
        yield held
