"""BPE-dropout: tokens cut into smaller ones by leaving out merges at random (Provilkov et al. 2020, arXiv 1910.13267).

Each token is put together again from its characters; at every step each merge that could be made is left out with a
given chance, the first of the rest is made, and what is there when none is left stays. It works on ids: borders that
stood between tokens stay, where the paper starts from whole words. The library's own dropout cannot be seeded.
"""

import json
import random
from collections.abc import Iterator

from qualm.errors import UsageError
from qualm.tokens.tokenizer import Tokens


class Splitter:
    """Cuts ids of a BPE tokenizer. Raises UsageError for a tokenizer of another kind, which has no merges."""

    def __init__(self, tokens: Tokens):
        model = json.loads(tokens.tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise UsageError(
                f"the tokenizer is {model['type']}, which has no merges to leave out",
                where="bpe_dropout",
                then="use a BPE tokenizer, or token_dropout",
            )
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        self.ids: dict[str, int] = model["vocab"]
        added = set(tokens.tokenizer.get_added_tokens_decoder())
        self.spelled = {i: text for text, i in self.ids.items() if i not in added and len(text) > 1}

    def __call__(self, token: int, share: float, rng: random.Random) -> list[int]:
        """The ids that a token becomes: itself, where it cannot be cut."""
        parts = list(self.spelled.get(token, ""))
        while merges := list(self._merges(parts, share, rng)):
            _, at = min(merges)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts] if parts and all(part in self.ids for part in parts) else [token]

    def _merges(self, parts: list[str], share: float, rng: random.Random) -> Iterator[tuple[int, int]]:
        """Rank and place of those that are not left out."""
        for at in range(len(parts) - 1):
            rank = self.ranks.get((parts[at], parts[at + 1]))
            if rank is not None and rng.random() >= share:
                yield rank, at
