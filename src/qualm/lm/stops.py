"""Stop strings found as a text comes, however it is cut, in time that grows with the text and not with the strings."""

from collections.abc import Sequence


class Stop:
    """How much of one string the text ends with (Knuth, Morris and Pratt 1977); the table grows as it is needed."""

    def __init__(self, string: str):
        self.string, self.matched = string, 0
        self.borders = [0, 0]  # of each beginning of the string, by length: its longest proper one that also ends it

    def push(self, character: str) -> bool:
        """Whether the string is complete with this character."""
        matched = self._next(self.matched, character)
        while len(self.borders) <= matched:
            length = len(self.borders)
            self.borders.append(self._next(self.borders[length - 1], self.string[length - 1]))
        self.matched = matched
        return matched == len(self.string)

    def _next(self, matched: int, character: str) -> int:
        while matched and (matched == len(self.string) or self.string[matched] != character):
            matched = self.borders[matched]
        return matched + (self.string[matched] == character)


class Stops:
    """Several strings; the first to be complete counts, and of those that end together the longest."""

    def __init__(self, strings: Sequence[str]):
        self.stops = [Stop(string) for string in strings]
        self.read = 0

    def push(self, piece: str) -> int | None:
        """Where in all that was pushed a stop string begins; None while there is none."""
        for character in piece if self.stops else "":
            self.read += 1
            ended = [len(stop.string) for stop in self.stops if stop.push(character)]
            if ended:
                return self.read - max(ended)
        return None

    @property
    def open(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        return max((stop.matched for stop in self.stops), default=0)
