"""/v1/chat/completions."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from qualm.cases import Prompt
from qualm.lm.base import Completion, Sampling, Shape
from qualm.lm.batch import Delta, Token
from qualm.mends.retrieval import Library, asked
from qualm.serving.asking import sampling_of
from qualm.serving.errors import Refusal
from qualm.serving.flights import Flights
from qualm.serving.replies import Json, chat_logprobs, finish_of, head, ours, tokens_of, usage
from qualm.serving.schema import ChatBody, SchemaFormat, TextFormat
from qualm.serving.served import Served
from qualm.serving.stream import KEEP_ALIVE
from qualm.serving.tools import Tools

DEFAULT_TOKENS = 1024  # where a request does not say
ROOM = 32  # tokens of an answer that must fit beside passages
PREFIX, KIND, PIECE = "chatcmpl", "chat.completion", "chat.completion.chunk"
ANY_OBJECT = json.dumps({"type": "object"})


class Chat:
    """One request: the answers it asked for, and the replies made of them."""

    def __init__(self, served: Served, body: ChatBody, most_choices: int):
        served.needs("generate", "answer messages")
        if (body.n or 1) > most_choices:
            raise Refusal(400, f"n: this server gives at most {most_choices} answers", param="n", code="invalid_value")
        if body.top_logprobs and not body.logprobs:
            raise Refusal(400, "top_logprobs needs logprobs", param="top_logprobs", code="invalid_value")
        self.served, self.body, self.tools = served, body, Tools.of(body)
        self.top = body.top_logprobs or 0
        self.prompt: Prompt = self.tools.told(body.messages)
        self.head = head(PREFIX, KIND, served)
        self.notes: Json = {}  # what was done before the model was asked

    def reads(self, library: Library) -> None:
        """Put the passages that bear on the question before it, as many as the model has room for."""
        for most in range(library.settings.k, 0, -1):
            prompt, found = asked(self.prompt, lambda question: library.find(question)[:most])  # noqa: B023
            if found and fits(self.served, prompt):
                self.prompt, self.notes = prompt, {"passages": [tuple(passage) for passage in found]}
                return

    def ask(self) -> Flights:
        body = self.body
        most = body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS
        sampling = sampling_of(body, most, alternatives=self.top)
        if shape := self._shape(sampling):
            sampling = replace(sampling, shape=shape)
        several = [replace(sampling, seed=sampling.seed + number) for number in range(body.n or 1)]
        return self.served.worker.ask((self.prompt, each) for each in several)

    def _shape(self, sampling: Sampling) -> Shape | None:
        wanted = [each for each in (self._format(), self.tools.shape, sampling.shape) if each is not None]
        if len(wanted) > 1:
            raise Refusal(400, "response_format, a forced tool and guided_... exclude each other", code="invalid_value")
        return wanted[0] if wanted else None

    def _format(self) -> Shape | None:
        match self.body.response_format:
            case SchemaFormat(json_schema=asked):
                return Shape("json", json.dumps(asked.schema_, ensure_ascii=False))
            case TextFormat(type="json_object"):
                return Shape("json", ANY_OBJECT)
        return None

    # -- the whole reply

    def whole(self, flights: Flights) -> Json:
        completions = [flights.completions[i] for i in range(len(flights.flights))]
        choices = [self._choice(i, each, flights.deltas[i]) for i, each in enumerate(completions)]
        return {**self.head, "choices": choices, "usage": self._usage(completions)}

    def _choice(self, index: int, completion: Completion, deltas: Sequence[Delta]) -> Json:
        text, calls = self.tools.read(completion.text)
        message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = [call.document() for call in calls]
        tokens, told = tokens_of(deltas), bool(self.body.logprobs)
        return {
            "index": index,
            "message": message,
            "finish_reason": "tool_calls" if calls else finish_of(completion),
            "logprobs": chat_logprobs(tokens, self.top) if told else None,
            **self._ours(completion, tokens, told),
        }

    def _ours(self, completion: Completion, tokens: Sequence[Token], told: bool) -> Json:
        return ours(replace(completion, notes={**completion.notes, **self.notes}), tokens, told)

    def _usage(self, completions: Sequence[Completion]) -> Json:
        return usage(completions[0].prompt_tokens, sum(each.tokens for each in completions))

    # -- the reply in pieces

    async def events(self, flights: Flights, first: list[tuple[int, Delta]]) -> AsyncIterator[list[Json]]:
        numbers = range(len(flights.flights))
        sent = [""] * len(numbers)  # what was let out of each answer
        yield [self._piece(index, {"role": "assistant", "content": ""}) for index in numbers]
        new = first
        while True:
            yield [piece for index, delta in new for piece in self._pieces(index, delta, sent, flights)]
            if flights.done:
                break
            new = await flights.next(KEEP_ALIVE)
        if self._wants_usage:
            counted = self._usage([flights.completions[index] for index in numbers])
            yield [{**self.head, "object": PIECE, "choices": [], "usage": counted}]

    def _pieces(self, index: int, delta: Delta, sent: list[str], flights: Flights) -> list[Json]:
        """What one delta lets out: text that is no part of a call, then at the end the calls and the finish."""
        tokens, told = list(delta.tokens), bool(self.body.logprobs)
        logprobs = chat_logprobs(tokens, self.top) if told else None
        if not self.tools.tools:
            pieces = [self._piece(index, {"content": delta.text}, logprobs)] if delta.text or logprobs else []
            calls = []
        else:
            pieces, calls = self._around_calls(index, delta, sent, flights, logprobs)
        if delta.completion is not None:
            finish = "tool_calls" if calls else finish_of(delta.completion)
            known = tokens_of(flights.deltas[index])
            pieces.append(self._piece(index, {}, finish=finish, more=self._ours(delta.completion, known, told)))
        return pieces

    def _around_calls(
        self, index: int, delta: Delta, sent: list[str], flights: Flights, logprobs: Json | None
    ) -> tuple[list[Json], list[Any]]:
        whole = "".join(each.text for each in flights.deltas[index])
        final, calls = delta.completion is not None, []
        if final:
            whole, calls = self.tools.read(whole)
        sure = whole[: self.tools.sure(whole, final and not calls)] if not calls else whole
        new = sure[len(sent[index]) :] if sure.startswith(sent[index]) else ""
        sent[index] += new
        pieces = [self._piece(index, {"content": new}, logprobs)] if new or logprobs else []
        for number, call in enumerate(calls):
            pieces.append(self._piece(index, {"tool_calls": [{"index": number, **call.document()}]}))
        return pieces, calls

    @property
    def _wants_usage(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    def _piece(
        self, index: int, delta: Json, logprobs: Json | None = None, finish: str | None = None, more: Json | None = None
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, **(more or {})}
        piece = {**self.head, "object": PIECE, "choices": [choice]}
        return {**piece, "usage": None} if self._wants_usage else piece


def fits(served: Served, prompt: Prompt) -> bool:
    """Whether the model can look at a prompt and still answer; taken for granted where its tokenizer is not here."""
    local = served.local
    return local is None or len(local.tokens.encode_prompt(prompt)) + ROOM <= local.context
