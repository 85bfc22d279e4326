"""Who is let in: so many requests a minute for a key, so many at once for a model. The rest is told when to come
again."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from qualm.serving.errors import Busy

Clock = Callable[[], float]  # seconds that only grow
MINUTE = 60.0
RECENT = 0.1  # share of a new answer's seconds in the running mean
LONGEST_WAIT = 120  # seconds that a client is asked to wait at most


@dataclass
class Bucket:
    """A bucket of `size` requests that fills up again within a minute (a token bucket)."""

    size: int
    clock: Clock = time.monotonic
    left: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.at = float(self.size), self.clock()

    def fill(self) -> None:
        now = self.clock()
        self.left = min(float(self.size), self.left + (now - self.at) * self.size / MINUTE)
        self.at = now

    def take(self) -> None:
        """One request. Raises Busy if there is none left."""
        self.fill()
        if self.left < 1:
            seconds = (1 - self.left) * MINUTE / self.size
            raise Busy("this key has asked too often", math.ceil(seconds), code="rate_limit_exceeded")
        self.left -= 1

    def headers(self) -> dict[str, str]:
        """What OpenAI's clients read about it."""
        reset = (self.size - self.left) * MINUTE / self.size
        return {
            "x-ratelimit-limit-requests": str(self.size),
            "x-ratelimit-remaining-requests": str(int(self.left)),
            "x-ratelimit-reset-requests": f"{reset:.1f}s",
        }


@dataclass
class Gate:
    """At most `rows` answers under way and `queue` waiting; guesses when there will be room from how long answers took.

    `closed` is set while the server drains: nobody is let in, those inside may finish.
    """

    rows: int
    queue: int
    inside: int = 0
    closed: bool = False
    seconds: float = 1.0  # of an answer, a running mean

    def enter(self, count: int = 1) -> None:
        """Let in a request of `count` answers. Raises Busy if there is no room."""
        if self.closed:
            raise Busy("this server is closing", 5, status=503, code="closing")
        if self.inside + count > self.rows + self.queue:
            raise Busy(f"{self.inside} requests are under way and waiting; there is no room", self.wait())

    def begin(self) -> None:
        self.inside += 1

    def end(self, seconds: float) -> None:
        self.inside -= 1
        self.seconds += RECENT * (seconds - self.seconds)

    def wait(self) -> int:
        """Seconds until about half of what waits is done."""
        turns = max(1.0, self.inside / self.rows / 2)
        return min(LONGEST_WAIT, max(1, math.ceil(turns * self.seconds)))
