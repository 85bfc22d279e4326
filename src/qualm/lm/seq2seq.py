"""Encoder-decoders as language models: they write under a text they have read whole, and score what is given."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from qualm.errors import Unsupported
from qualm.lm.base import UNDER, Prompt, Sampling, Scored
from qualm.lm.causal import Writing
from qualm.lm.decode import Step, padded, source, steps
from qualm.lm.scoring import score_positions
from qualm.models.base import EncoderDecoder, Model

BATCH = 4096  # tokens read at once, of sources and of what is scored under them


class Seq2SeqLM(Writing):
    """An encoder-decoder and its tokenizer: the prompt is the source, the answer is written under it.

    A continuation is scored under its context as source, the two tokenised apart, as the model was taught.
    """

    of: ClassVar[type[Model]] = EncoderDecoder
    scoring: ClassVar[str] = UNDER
    can = frozenset({"generate", "score", "weights"})

    @property
    def start(self) -> int:
        """The id that the decoder begins with."""
        return self.model.config.decoder_start_token_id

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Raises Unsupported if a context or a continuation is longer than the model can look at."""
        texts = [(self._encode(context), self._target(continuation)) for context, continuation in pairs]
        scores: list[Scored] = [Scored(())] * len(texts)
        for batch in by_source(texts):
            found = self._score_batch([texts[i] for i in batch])
            for i, values in zip(batch, found, strict=True):
                scores[i] = Scored(tuple(values))
        return scores

    @torch.inference_mode()
    def _score_batch(self, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probabilities of targets under their sources; each different source is read once."""
        device = next(self.model.parameters()).device
        sources = list({tuple(read): None for read, _ in texts})
        cache = self.model.encode(*padded(sources, device), room=max(len(target) for _, target in texts))
        cache.keep(torch.tensor([sources.index(tuple(read)) for read, _ in texts], device=device))
        ids, _ = padded([[self.start, *target[:-1]] for _, target in texts], device)
        hidden: Tensor = self.model.hidden(ids, cache)  # (B, T, D)
        places = [(row, at, token) for row, (_, target) in enumerate(texts) for at, token in enumerate(target)]
        rows, at, tokens = torch.tensor(places, device=device).T
        values = iter(score_positions(self.model, hidden[rows, at], tokens))
        return [[next(values) for _ in target] for _, target in texts]

    def _target(self, text: str) -> list[int]:
        ids = self.tokens.encode(text)
        if len(ids) > self.context:
            raise Unsupported(f"a text of {len(ids)} tokens, and {self.name} can write {self.context}")
        return ids

    def _encode(self, prompt: Prompt) -> list[int]:
        return self._fits(self.tokens.encode_source(prompt), self.context)

    def _steps(self, encoded: Sequence[Sequence[int]], sampling: Sampling, done: set[int]) -> Iterator[list[Step]]:
        with torch.inference_mode():
            cache = self.model.encode(*padded(encoded, next(self.model.parameters()).device))
        draws = [source(sampling.seed, ids) for ids in encoded]
        return steps(self.model, [[self.start]] * len(encoded), sampling, done, cache, draws)

    def _room(self, ids: Sequence[int]) -> int:
        return self.context


def by_source(texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[list[int]]:
    """Indices of pairs with something to score, those of one source side by side, in batches of like length."""
    batch: list[int] = []
    kept = [i for i in range(len(texts)) if texts[i][1]]
    for i in sorted(kept, key=lambda i: (-len(texts[i][0]), texts[i][0], -len(texts[i][1]))):
        longest = max(len(texts[j][0]) for j in [*batch, i]) + max(len(texts[j][1]) for j in [*batch, i])
        if batch and longest * (len(batch) + 1) > BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
