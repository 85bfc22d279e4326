"""Encoder-decoders as language models: they write under a text they have read whole, and score what is given."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from qualm.errors import TooLong, Unsupported
from qualm.lm.base import UNDER, Prompt, Sampling, Scored
from qualm.lm.causal import AHEAD, Writing
from qualm.lm.decode import padded
from qualm.lm.engine import Request
from qualm.lm.scoring import Span, score_positions, windows
from qualm.models._caches import Cache
from qualm.models.base import EncoderDecoder, Model

BATCH = 4096  # tokens read at once, of sources and of what is scored under them, padding included


class Pair(NamedTuple):
    """A source, and what of its target is scored under it."""

    source: tuple[int, ...]
    span: Span


class Seq2SeqLM(Writing):
    """An encoder-decoder and its tokenizer: the prompt is the source, the answer is written under it.

    A continuation is scored under its context as source, the two tokenised apart, as the model was taught. An empty
    context is the source of an empty text: its end token alone.
    """

    of: ClassVar[type[Model]] = EncoderDecoder
    scoring: ClassVar[str] = UNDER
    can = frozenset({"generate", "score", "weights"})

    @property
    def start(self) -> int:
        """The id that the decoder begins with."""
        return self.model.config.decoder_start_token_id

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Continuations longer than the model's context are read in windows, each begun anew by the start id.

        A pair whose context is longer than the model can look at stays unread.
        """
        spans: list[Pair] = []
        sources, too_long = self._sources([context for context, _ in pairs])
        for item, source_ids in sources.items():
            ids = self.tokens.encode_target(pairs[item][1])
            spans += [Pair(tuple(source_ids), span) for span in windows(item, ids, 0, self.context)]
        found: dict[int, list[float]] = {}
        for batch in batches(spans):
            found |= zip(batch, self._score_batch([spans[i] for i in batch]), strict=True)
        scores: list[list[float]] = [[] for _ in pairs]
        for i, (_, span) in enumerate(spans):
            scores[span.item] += found.get(i, [])
        return [
            Scored.lost(too_long[item]) if item in too_long else Scored(tuple(values))
            for item, values in enumerate(scores)
        ]

    def _sources(self, contexts: Sequence[Prompt]) -> tuple[dict[int, list[int]], dict[int, str]]:
        """By their places: the ids of the contexts that the model can look at, and why it cannot at the others."""
        encoded, too_long = {}, {}
        for i, context in enumerate(contexts):
            try:
                encoded[i] = self._fitting(self._encode(context), Sampling())
            except TooLong as error:
                too_long[i] = str(error)
        return encoded, too_long

    @torch.inference_mode()
    def _score_batch(self, pairs: Sequence[Pair]) -> list[list[float]]:
        """Log-probabilities of targets under their sources; each different source is read once."""
        device = next(self.model.parameters()).device
        spans, number = (
            [span for _, span in pairs],
            {read: i for i, read in enumerate(dict.fromkeys(p[0] for p in pairs))},
        )
        cache = self.model.encode(*padded(list(number), device), room=max(len(span.ids) for span in spans))
        cache.keep(torch.tensor([number[read] for read, _ in pairs], device=device))
        ids, _ = padded([[self.start, *span.ids[:-1]] for span in spans], device)
        hidden: Tensor = self.model.hidden(ids, cache)  # (B, T, D)
        places = [(row, at, s.ids[at]) for row, s in enumerate(spans) for at in range(s.first, len(s.ids))]
        rows, at, tokens = torch.tensor(places, device=device).T
        values = iter(score_positions(self.model, hidden[rows, at], tokens))
        return [[next(values) for _ in span.ids[span.first :]] for span in spans]

    def opened(self, requests: Sequence[Request]) -> Cache:
        sources = padded([request.ids for request in requests], next(self.model.parameters()).device)
        room = max(min(request.slots, len(request.begun) + AHEAD) for request in requests)
        return self.model.encode(*sources, room=room)

    def _encode(self, prompt: Prompt) -> list[int]:
        ids = self.tokens.encode_source(prompt)
        if not ids:
            raise Unsupported(
                f"{self.name} cannot read nothing: its tokenizer names no bos or eos", then="give a text to read"
            )
        return ids

    def _begun(self, ids: Sequence[int]) -> Sequence[int]:
        return [self.start]

    def _follows(self, ids: Sequence[int]) -> Sequence[int]:
        return ()  # the answer's text does not go on with the source's

    def _room(self, ids: Sequence[int]) -> int:
        over = len(ids) - self.context
        return self.context if over <= 0 else 1 - over


def batches(pairs: Sequence[Pair]) -> Iterator[list[int]]:
    """Indices of pairs with something to score, in batches of like length, longest first, equal sources together."""
    batch: list[int] = []
    written = 0
    kept = [i for i, (_, span) in enumerate(pairs) if span.ids]
    for i in sorted(kept, key=lambda i: (-len(pairs[i].source), pairs[i].source, -len(pairs[i].span.ids))):
        read, longest = len(pairs[batch[0]].source) if batch else 0, max(written, len(pairs[i].span.ids))
        if batch and (read + longest) * (len(batch) + 1) > BATCH:
            yield batch
            batch, longest = [], len(pairs[i].span.ids)
        batch.append(i)
        written = longest
    if batch:
        yield batch
