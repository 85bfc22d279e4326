"""Prompts that were read, kept for those that begin alike: the last used ones, as many as there is room for."""

from collections import OrderedDict
from collections.abc import Sequence

from qualm.models._caches import Cache

SHARED = 32  # tokens that two prompts must begin with for the reading to be worth keeping


def alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two texts begin with alike."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    return next(i for i in range(shorter) if a[i] != b[i])


class Prefixes:
    """At most `room` tokens."""

    def __init__(self, room: int):
        self.room, self.held = room, 0
        self._kept: OrderedDict[tuple[int, ...], Cache] = OrderedDict()

    def find(self, ids: Sequence[int]) -> tuple[Cache | None, int]:
        """The cache of the longest known beginning of a prompt, a copy, and its length; the last id is never in it."""
        asked = tuple(ids[:-1])
        for length, known in sorted(((alike(asked, known), known) for known in self._kept), reverse=True):
            if length < SHARED:
                break
            found = self._kept[known].beginning(0, length)
            if found is not None:
                self._kept.move_to_end(known)
                return found, length
        return None, 0

    def keep(self, ids: Sequence[int], cache: Cache, row: int) -> None:
        """What a row of a cache holds of a prompt that was read whole."""
        known = tuple(ids)
        if known in self._kept or not SHARED <= len(known) <= self.room:
            return
        made = cache.beginning(row, len(known))
        if made is None:
            return
        self._kept[known] = made
        self.held += len(known)
        while self.held > self.room:
            old, _ = self._kept.popitem(last=False)
            self.held -= len(old)
