"""A smaller model's guesses at what a larger one will write (Leviathan et al. 2022, arXiv 2211.17192)."""

from collections.abc import Sequence

import torch

from qualm.lm.prefixes import alike
from qualm.models._caches import Cache
from qualm.models.base import Decoder


class Drafted:
    """The likeliest `length` tokens of a decoder with a cache that can be rewound; one for each request."""

    def __init__(self, model: Decoder, length: int):
        self.model, self.length = model, length
        self.read: list[int] = []
        self.cache: Cache | None = None

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int]) -> Sequence[int]:
        """How the ids go on; nothing where its context ends."""
        if len(ids) + self.length > self.model.config.context:
            return ()
        known = min(alike(self.read, ids), len(ids) - 1)
        if self.cache is None:
            self.cache = self.model.new_cache(1, len(ids) + self.length)
        elif known < len(self.read):
            self.cache.rewind(self.cache.lengths.new_full((1,), known))
        feed, guessed = list(ids[known:]), list[int]()
        while len(guessed) < self.length:
            hidden = self.model.hidden(torch.tensor([feed], device=self.cache.lengths.device), self.cache)
            guessed.append(int(self.model.head(hidden[:, -1]).argmax()))
            feed = guessed[-1:]
        self.read = [*ids, *guessed[:-1]]
        return guessed
