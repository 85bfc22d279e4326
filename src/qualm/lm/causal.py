"""Decoders as language models: they go on with a text, and score one."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from qualm.errors import TooLong, Unsupported, UsageError
from qualm.lm.base import Completion, Prompt, Sampling, Scored
from qualm.lm.batch import ROWS, SLOTS
from qualm.lm.beam import Beam, Beams, Plan
from qualm.lm.checks import check
from qualm.lm.constraints import Setting, constrain
from qualm.lm.contrast import Contrast
from qualm.lm.draft import Drafted
from qualm.lm.engine import Engine, Request
from qualm.lm.local import Local
from qualm.lm.policies import Past, Words, chooser, weighing
from qualm.lm.scoring import logprobs
from qualm.lm.search import Drawing, Guess, Picked, Search, looked_up, source
from qualm.lm.writer import Spelling, Writer
from qualm.models._caches import Cache, KVCache
from qualm.models.base import Decoder, Model
from qualm.models.layers import pack
from qualm.tokens.tokenizer import opened

AHEAD = 256  # slots a new cache has beyond the prompt; it grows


class Writing(Local):
    """A model that writes token by token, after or under the ids of a prompt."""

    @abstractmethod
    def _encode(self, prompt: Prompt) -> list[int]:
        """The ids to read. Raises Unsupported if there are none."""

    @abstractmethod
    def _begun(self, ids: Sequence[int]) -> Sequence[int]:
        """What the decoder reads first, for a prompt of these ids."""

    @abstractmethod
    def _room(self, ids: Sequence[int]) -> int:
        """The most tokens that can be written for a prompt of these ids; below 1 if it is too long."""

    @abstractmethod
    def opened(self, requests: Sequence[Request]) -> Cache:
        """A cache for these requests, in which nothing was written yet."""

    @cached_property
    def spelling(self) -> Spelling:
        return Spelling(self.tokens)

    @property
    def divides(self) -> bool:
        return False

    @property
    def rewinds(self) -> bool:
        """Whether what was read can be taken back, so that guessing ahead costs no second reading."""
        return False

    def batch(self, rows: int = ROWS, slots: int = SLOTS) -> Engine:
        pack(self.model)
        return Engine(self, rows, slots)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """`max_tokens` is cut to what the model's context has left; a prompt that fills the context stays unread.

        Raises UsageError on settings that mean nothing, Unsupported on a prompt without tokens.
        """
        check(sampling)
        completions: dict[int, Completion] = {}
        requests: list[Request] = []
        for i, prompt in enumerate(prompts):
            try:
                requests.append(self.request(i, prompt, sampling))
            except TooLong as error:
                completions[i] = Completion.lost(str(error))
        batch = self.batch()
        for request in sorted(requests, key=lambda request: -len(request.ids)):
            batch.put(request)
        while batch:
            completions |= {i: delta.completion for i, delta in batch.step().items() if delta.completion}
        return [completions[i] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """As `generate`, each piece as soon as no stop string and no further byte can change it."""
        batch = self.batch()
        batch.join(prompt, sampling)
        while batch:
            yield from (delta.text for delta in batch.step().values() if delta.text)

    def request(self, ticket: int, prompt: Prompt, sampling: Sampling) -> Request:
        """A prompt as the engine takes it. Raises as `Batch.join` does."""
        check(sampling)
        ids = self._fitting(self._encode(prompt), sampling)
        begun, room = self._begun(ids), min(self._room(ids), sampling.max_tokens)
        search = self._search(ids, prompt, sampling)
        slots = len(begun) + room + (0 if len(begun) == len(ids) else len(ids))
        return Request(ticket, ids, begun, sampling, self._writer(prompt, ids, sampling), search, slots)

    def _fitting(self, ids: list[int], sampling: Sampling) -> list[int]:
        """The ids, less what `sampling.cut` leaves out of too many. Raises TooLong if it leaves nothing out."""
        over = 1 - self._room(ids)
        if over <= 0:
            return ids
        if sampling.cut == "refuse":
            most = len(ids) - over
            shared = ", the answer included" if most < self.context else ""
            raise TooLong(
                f"the prompt has {len(ids)} tokens and {self.name} can look at {self.context}{shared}",
                then="shorten the prompt, or say what may be cut",
            )
        over += min(sampling.max_tokens, self.context // 2) - 1 if len(ids) - over < self.context else 0
        front = 0 if sampling.cut == "head" else (len(ids) - over) // 2
        start = len(self.tokens.start)
        front = max(front, start if list(ids[:start]) == list(self.tokens.start) else 0)
        return [*ids[:front], *ids[front + over :]]

    def _search(self, ids: Sequence[int], prompt: Prompt, sampling: Sampling) -> Search:
        before = self._begun(ids)
        words = Words(self.model.never, self._phrases(sampling.banned))
        room = max(1, min(sampling.max_tokens, self._room(ids)))
        past = Past(list(before), len(before))
        if sampling.beams > 1:
            groups = (sampling.beam_groups, sampling.diversity_penalty)
            early, penalty = sampling.early_stopping, sampling.length_penalty
            plan = Plan(sampling.beams, room, self.ends, penalty, early, *groups, weighing(sampling, words))
            return Beams(plan, before, self._others(prompt, ids, sampling) if sampling.n_best > 1 else None)
        if sampling.contrast:
            return Contrast(sampling.contrast, sampling.top_k, past, weighing(sampling, words), sampling.alternatives)
        plan = Drawing(chooser(sampling, words), past, source(sampling.seed, ids), sampling.alternatives)
        plan.limit = len(before) + room
        if sampling.shape is not None:
            size = self.model.config.vocab_size if hasattr(self.model.config, "vocab_size") else self.tokens.vocab_size
            setting = Setting(self.tokens, size, self.ends, self._follows(ids), self._lead(prompt))
            plan.held = constrain(sampling.shape, setting)
        if sampling.lookup and self.rewinds:
            plan.guess = self._guess(sampling.lookup)
        return plan

    def _guess(self, length: int) -> Guess:
        return looked_up(length)

    def _phrases(self, words: Sequence[str]) -> list[list[int]]:
        """The ids of words that are not to be written, at the beginning of a text and within one."""
        spelled = (self.tokens.encode(text) for word in words for text in (word, f" {word}"))
        return [ids for ids in spelled if ids]

    def _others(self, prompt: Prompt, ids: Sequence[int], sampling: Sampling) -> Any:
        def told(beams: Sequence[Beam]) -> Mapping[str, Any]:
            return {"others": [self._other(beam, prompt, ids, sampling) for beam in beams[: sampling.n_best - 1]]}

        return told

    def _other(self, beam: Beam, prompt: Prompt, ids: Sequence[int], sampling: Sampling) -> Mapping[str, Any]:
        writer = self._writer(prompt, ids, sampling)
        for picked in map(Picked, beam.tokens, beam.logprobs):
            if not writer.finish:
                writer.push(self.spelling.token(picked.token, picked.logprob))
        said = writer.completion(len(ids))
        return {"text": said.text, "finish": said.finish, "logprobs": said.logprobs, "score": beam.score}

    def _lead(self, prompt: Prompt) -> str:
        """What the template puts before the answer to this prompt."""
        return "" if isinstance(prompt, str) or opened(prompt)[1] else self.tokens.lead

    def _follows(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids whose text the answer's goes on with."""
        return ids

    def _writer(self, prompt: Prompt, ids: Sequence[int], sampling: Sampling) -> Writer:
        detokenizer = self.tokens.detokenizer(self._follows(ids))
        return Writer(detokenizer, sampling, self.ends, self._room(ids), self._lead(prompt))


class CausalLM(Writing):
    """A decoder and its tokenizer."""

    of: ClassVar[type[Model]] = Decoder
    can = frozenset({"generate", "score", "weights"})
    draft: Decoder | None = None

    def drafted_by(self, other: "CausalLM") -> "CausalLM":
        """The same, with the guesses of a smaller model: `Sampling.lookup` says how many tokens it guesses at once.

        Raises UsageError if it has another tokenizer, or a cache that cannot be rewound.
        """
        if other.tokens.hash != self.tokens.hash or not other.rewinds:
            raise UsageError(
                f"{other.name} cannot guess for {self.name}: it needs the same tokenizer, and attention",
                then="take a smaller model of the same family",
            )
        made = type(self)(self.model, self.tokens, name=self.name, path=self.path, about=self.about)
        made.draft = other.model
        return made

    def _guess(self, length: int) -> Guess:
        return looked_up(length) if self.draft is None else Drafted(self.draft, length)

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
        pack(self.model)
        return [Scored(tuple(values)) for values in logprobs(self.model, texts, self.context)]

    def opened(self, requests: Sequence[Request]) -> Cache:
        room = max(min(request.slots, len(request.begun) + AHEAD) for request in requests)
        return self.model.new_cache(len(requests), room)

    @cached_property
    def divides(self) -> bool:
        return isinstance(self.model.new_cache(1, 1), KVCache)

    @property
    def rewinds(self) -> bool:
        return self.divides

    def _encode(self, prompt: Prompt) -> list[int]:
        ids = self.tokens.encode_prompt(prompt)
        if not ids:
            raise Unsupported(
                f"{self.name} cannot continue nothing: its tokenizer names no bos or eos", then="give a prompt"
            )
        return ids

    def _begun(self, ids: Sequence[int]) -> Sequence[int]:
        return ids

    def _room(self, ids: Sequence[int]) -> int:
        return self.context - len(ids)
