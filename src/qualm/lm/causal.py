"""Decoders as language models: they go on with a text, and score one."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from qualm.errors import TooLong, Unsupported
from qualm.lm.base import Completion, Prompt, Sampling, Scored
from qualm.lm.beam import Search, beams, best
from qualm.lm.decode import Step, Writer, check, opened_cache, source, steps
from qualm.lm.local import Local
from qualm.lm.scoring import logprobs
from qualm.models.base import Decoder, Model
from qualm.models.layers import Cache
from qualm.tokens.tokenizer import opened

Rows = Sequence[Sequence[int]]
ROWS = 32  # prompts answered at once
HELD = 16384  # tokens, read and to be written, that those rows may come to


class Writing(Local):
    """A model that writes token by token, after or under the ids of a prompt."""

    @abstractmethod
    def _encode(self, prompt: Prompt) -> list[int]:
        """The ids to read. Raises Unsupported if there are none, TooLong if more than the model can look at."""

    @abstractmethod
    def _steps(self, encoded: Sequence[Sequence[int]], sampling: Sampling, done: set[int]) -> Iterator[list[Step]]:
        """What `decode.steps` yields for these prompts."""

    @abstractmethod
    def _room(self, ids: Sequence[int]) -> int:
        """The most tokens that can be written for a prompt of these ids."""

    def _written(
        self, begun: Rows, encoded: Rows, cache: Cache, sampling: Sampling, done: set[int]
    ) -> Iterator[list[Step]]:
        """What is written after the ids `begun`, which are read into `cache`, for prompts of the ids `encoded`."""
        if sampling.beams == 1:
            draws = [source(sampling.seed, ids) for ids in encoded]
            return steps(self.model, begun, sampling, done, cache, draws)
        rooms = [max(1, min(sampling.max_tokens, self._room(ids))) for ids in encoded]
        search = Search(sampling.beams, rooms, self.ends, sampling.length_penalty)
        return best(beams(self.model, begun, cache, search), done)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """`max_tokens` is cut to what the model's context has left; a prompt that fills the context stays unread.

        Raises UsageError on settings that mean nothing, Unsupported on a prompt without tokens.
        """
        check(sampling)
        encoded, too_long = self._encode_all(prompts)
        completions = {i: Completion.lost(why) for i, why in too_long.items()}
        for batch in self._batches(encoded, sampling.max_tokens):
            writers = [self._writer(prompts[i], encoded[i], sampling) for i in batch]
            done = {row for row, writer in enumerate(writers) if writer.finish}
            if len(done) < len(batch):
                for new in self._steps([encoded[i] for i in batch], sampling, done):
                    for row, token, logprob in new:
                        writers[row].push(token, logprob)
                        if writers[row].finish:
                            done.add(row)
            completions |= {i: w.completion(len(encoded[i])) for i, w in zip(batch, writers, strict=True)}
        return [completions[i] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """As `generate`, each piece as soon as no stop string and no further byte can change it."""
        check(sampling)
        ids = self._encode(prompt)
        writer, sent = self._writer(prompt, ids, sampling), 0
        done: set[int] = {0} if writer.finish else set()
        for new in self._steps([ids], sampling, done) if not done else ():
            for _, token, logprob in new:
                writer.push(token, logprob)
            if writer.finish:
                done.add(0)
            sure = writer.sure
            if sure > sent:
                yield writer.text[sent:sure]
                sent = sure

    def _encode_all(self, prompts: Sequence[Prompt]) -> tuple[dict[int, list[int]], dict[int, str]]:
        """By their places: the ids of the prompts that the model can look at, and why it cannot at the others."""
        encoded, too_long = {}, {}
        for i, prompt in enumerate(prompts):
            try:
                encoded[i] = self._encode(prompt)
            except TooLong as error:
                too_long[i] = str(error)
        return encoded, too_long

    def _fits(self, ids: list[int], most: int) -> list[int]:
        """The ids. Raises TooLong if they are more than `most`."""
        if len(ids) > most:
            shared = ", the answer included" if most < self.context else ""
            raise TooLong(
                f"the prompt has {len(ids)} tokens and {self.name} can look at {self.context}{shared}",
                then="shorten the prompt",
            )
        return ids

    def _writer(self, prompt: Prompt, ids: Sequence[int], sampling: Sampling) -> Writer:
        begun = isinstance(prompt, str) or opened(prompt)[1]
        lead = "" if begun else self.tokens.lead
        return Writer(self.tokens.detokenizer(ids), sampling, self.ends, self._room(ids), lead)

    def _batches(self, encoded: Mapping[int, Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
        """Places of prompts of like length, longest first."""
        batch: list[int] = []
        longest = 0
        for i in sorted(encoded, key=lambda i: -len(encoded[i])):
            longest = longest if batch else len(encoded[i]) + min(max_tokens, self._room(encoded[i]))
            if batch and (len(batch) == ROWS or (len(batch) + 1) * longest > HELD):
                yield batch
                batch, longest = [], len(encoded[i]) + min(max_tokens, self._room(encoded[i]))
            batch.append(i)
        if batch:
            yield batch


class CausalLM(Writing):
    """A decoder and its tokenizer."""

    of: ClassVar[type[Model]] = Decoder
    can = frozenset({"generate", "score", "weights"})

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Texts longer than the model's context are read in windows (see `scoring.windows`).

        Raises Unsupported if nothing stands before a text and the tokenizer has no token that starts a document.
        """
        texts = [self.tokens.encode_pair(context, continuation) for context, continuation in pairs]
        if any(first == 0 and ids for ids, first in texts):
            raise Unsupported(
                f"{self.name} cannot score a text that nothing stands before: its tokenizer names no bos or eos",
                then="give a context",
            )
        return [Scored(tuple(values)) for values in logprobs(self.model, texts, self.context)]

    def _encode(self, prompt: Prompt) -> list[int]:
        ids = self.tokens.encode_prompt(prompt)
        if not ids:
            raise Unsupported(
                f"{self.name} cannot continue nothing: its tokenizer names no bos or eos", then="give a prompt"
            )
        return self._fits(ids, self.context - 1)

    def _steps(self, encoded: Sequence[Sequence[int]], sampling: Sampling, done: set[int]) -> Iterator[list[Step]]:
        return self._written(encoded, encoded, opened_cache(self.model, encoded), sampling, done)

    def _room(self, ids: Sequence[int]) -> int:
        return self.context - len(ids)
