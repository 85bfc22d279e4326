"""/v1/completions: texts gone on with, and with `echo` read back with their log-probabilities."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from qualm.lm.base import Completion
from qualm.lm.batch import Delta
from qualm.serving import echoed
from qualm.serving.asking import beams_of, sampling_of
from qualm.serving.echoed import Given, Place
from qualm.serving.errors import Refusal
from qualm.serving.flights import Flights
from qualm.serving.replies import Json, finish_of, head, legacy_logprobs, ours, tokens_of, usage
from qualm.serving.schema import CompletionBody
from qualm.serving.served import Served
from qualm.serving.stream import KEEP_ALIVE

DEFAULT_TOKENS = 16  # OpenAI's
PREFIX, KIND = "cmpl", "text_completion"


class Completions:
    """One request: its prompts, the answers it asked for, and the replies made of them."""

    def __init__(self, served: Served, body: CompletionBody, most_choices: int):
        self.served, self.body = served, body
        self.most = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        self.beams = beams_of(body)
        self.n = body.n or 1
        self.tried = 1 if self.beams > 1 else max(self.n, body.best_of or 1)  # answers a prompt, of which n are kept
        self.given = self._given()
        self._check(most_choices)
        self.head = head(PREFIX, KIND, served)

    def _given(self) -> list[str] | list[Given]:
        """The prompts: texts, or what tokens of the client's stand for."""
        prompt = self.body.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], str):
            return [text for text in prompt if isinstance(text, str)]
        rows = [prompt] if isinstance(prompt[0], int) else prompt
        tokens = self.served.tokens
        return [echoed.of_ids(tokens, [i for i in row if isinstance(i, int)]) for row in rows if isinstance(row, list)]

    def _check(self, most_choices: int) -> None:
        body = self.body
        told = body.logprobs is not None
        wrong = {
            "best_of": body.best_of is not None and (body.best_of < self.n or bool(body.stream)),
            "stream": bool(body.stream and (body.echo or self.beams > 1)),
            "max_tokens": self.most == 0 and not body.echo,
            "n": self.beams > 1 and self.n > self.beams,
        }
        why = {
            "best_of": "best_of must be n at least, and is not streamed",
            "stream": "neither echo nor beams are streamed",
            "max_tokens": "max_tokens is 0, and echo is not set: nothing to do",
            "n": "n must not be above the number of beams",
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise Refusal(400, why[name], param=name, code="invalid_value")
        if self.most and len(self.given) * self.tried > most_choices:
            text = f"{len(self.given)} prompts times {self.tried} are more than {most_choices} answers"
            raise Refusal(400, text, param="prompt", code="invalid_value")
        if self.most:
            self.served.needs("generate", "continue texts")
        if told and body.echo:
            self.served.needs("score", "tell log-probabilities of a given text")

    # -- what the model is asked

    def ask(self) -> Flights:
        body = self.body
        best_of = self.tried > self.n
        told = max(body.logprobs or 0, 1) if body.logprobs is not None or best_of else 0
        more = {"n_best": self.n} if self.beams > 1 else {"alternatives": told}
        sampling = sampling_of(body, self.most, **more)
        asked = chain.from_iterable(
            ((self._text(each), replace(sampling, seed=sampling.seed + number)) for number in range(self.tried))
            for each in self.given
        )
        return self.served.worker.ask(list(asked))

    def _text(self, given: str | Given) -> str:
        """The text to go on with. Raises Refusal for tokens that are not what the tokenizer makes of their text."""
        if isinstance(given, str):
            return given
        tokens = self.served.tokens
        start, ids = list(tokens.start), list(given.ids)
        bare = ids[len(start) :] if start and ids[: len(start)] == start else ids
        text = tokens.decode(bare, skip_special=False)
        if tokens.encode(text) != bare or not bare:
            why = "these tokens are not what the tokenizer makes of their text; send the text"
            raise Refusal(400, why, param="prompt", code="invalid_value")
        return text

    async def echo(self) -> list[tuple[Given, list[Place]]]:
        """The prompts with the log-probabilities of their tokens, where both are asked for."""
        if not self.body.echo or self.body.logprobs is None:
            return []
        tokens, top = self.served.tokens, max(self.body.logprobs, 1)
        given = [each if isinstance(each, Given) else echoed.of_text(tokens, each) for each in self.given]
        read: list[list[Place]] = []
        for some in echoed.portions(given):
            read += await self.served.worker.do(lambda: echoed.places(self.served, some, top))  # noqa: B023  # awaited
        return list(zip(given, read, strict=True))

    # -- the whole reply

    def whole(self, flights: Flights) -> Json:
        return self.reply(flights, [])

    def reply(self, flights: Flights | None, echoes: Sequence[tuple[Given, list[Place]]]) -> Json:
        choices, read, made = [], 0, 0
        for number, given in enumerate(self.given):
            text = given if isinstance(given, str) else given.text
            known = self._answers(flights, number) if flights else [(Completion("", finish="length"), [])]
            read += known[0][0].prompt_tokens or (len(echoes[number][0].ids) if echoes else 0)
            made += sum(completion.tokens for completion, _ in known)
            for completion, deltas in self._best(known):
                choice = self._choice(len(choices), completion, deltas)
                if self.body.echo:
                    written = choice["logprobs"] or unspelled(completion)
                    choice["text"] = text + completion.text
                    choice["logprobs"] = self._echoed(*echoes[number], written) if echoes else None
                choices.append(choice)
        return {**self.head, "choices": choices, "usage": usage(read, made)}

    def _answers(self, flights: Flights, number: int) -> list[tuple[Completion, list[Delta]]]:
        places = range(number * self.tried, (number + 1) * self.tried)
        known = [(flights.completions[i], flights.deltas[i]) for i in places]
        if self.beams > 1:
            first = known[0][0]
            known += [(another(other), []) for other in first.notes.get("others", ())]
        return known

    def _best(self, known: Sequence[tuple[Completion, list[Delta]]]) -> Sequence[tuple[Completion, list[Delta]]]:
        """The n likeliest, by their nats a token, if more were tried."""
        if self.beams > 1 or self.tried == self.n:
            return known[: self.n]
        return sorted(known, key=lambda each: -_nats_a_token(each[0]))[: self.n]

    def _choice(self, index: int, completion: Completion, deltas: Sequence[Delta]) -> Json:
        tokens, top = tokens_of(deltas), self.body.logprobs
        return {
            "index": index,
            "text": completion.text,
            "finish_reason": finish_of(completion),
            "logprobs": None if top is None else legacy_logprobs(tokens, top),
            **ours(completion, tokens, top is not None),
        }

    def _echoed(self, given: Given, read: list[Place], written: Json) -> Json:
        """The log-probabilities of a prompt, and behind them those of what was written, an entry a token in each."""
        told, count = echoed.logprobs(given, read, self.body.logprobs or 0), len(written["tokens"])
        after = {**written, "text_offset": [at + len(given.text) for at in written["text_offset"]]}
        return {
            name: [*before, *(after[name] or [None] * count)] if before is not None else None
            for name, before in told.items()
        }

    # -- the reply in pieces

    async def events(self, flights: Flights, first: list[tuple[int, Delta]]) -> AsyncIterator[list[Json]]:
        new, offsets = first, [0] * len(flights.flights)
        while True:
            yield [self._piece(index, delta, offsets, flights) for index, delta in new]
            if flights.done:
                break
            new = await flights.next(KEEP_ALIVE)
        if self._wants_usage:
            known = [flights.completions[i] for i in range(len(flights.flights))]
            read = sum(each.prompt_tokens for each in known[:: self.tried])
            yield [{**self.head, "choices": [], "usage": usage(read, sum(each.tokens for each in known))}]

    def _piece(self, index: int, delta: Delta, offsets: list[int], flights: Flights) -> Json:
        top, tokens = self.body.logprobs, list(delta.tokens)
        told = None if top is None else legacy_logprobs(tokens, top, offsets[index])
        offsets[index] += sum(len(token.text) for token in tokens)
        done = delta.completion
        known = tokens_of(flights.deltas[index])
        choice = {
            "index": index,
            "text": delta.text,
            "logprobs": told,
            "finish_reason": finish_of(done) if done else None,
            **(ours(done, known, top is not None) if done else {}),
        }
        return {**self.head, "choices": [choice], **({"usage": None} if self._wants_usage else {})}

    @property
    def _wants_usage(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)


def another(told: Mapping[str, Any]) -> Completion:
    """One of the answers behind a search's best."""
    return Completion(told["text"], 0, len(told["logprobs"]), told["finish"], tuple(told["logprobs"]))


def unspelled(completion: Completion) -> Json:
    """The legacy shape for an answer whose tokens are not told: all of its text stands in the first one."""
    numbers = completion.logprobs or (None,) * completion.tokens
    tokens = [completion.text, *[""] * len(numbers)][: len(numbers)]
    offsets = [0, *[len(completion.text)] * len(numbers)][: len(numbers)]
    return {"tokens": tokens, "token_logprobs": list(numbers), "top_logprobs": None, "text_offset": offsets}


def _nats_a_token(completion: Completion) -> float:
    return sum(completion.logprobs) / max(len(completion.logprobs), 1)
