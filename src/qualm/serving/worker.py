"""One model behind a queue: a thread of its own alone touches it, and steps its batch while there is something to do.

The event loop and that thread share two queues and nothing else: commands go in, what came of them comes back. A fault
in the model ends the answers that it was at, and nothing more.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from logging import getLogger
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from qualm.cases import Prompt, plain
from qualm.lm.base import LM, Sampling
from qualm.lm.batch import Batch, Delta
from qualm.serving.admission import Gate
from qualm.serving.errors import NO_MEMORY, Busy, Refusal, refusal_of
from qualm.serving.flights import Flight, Flights
from qualm.serving.settings import Limits

T = TypeVar("T")
UNREAD = 2**20  # bytes of an answer that may wait for a client; one that lets more come together has gone to sleep
AHEAD = 8  # steps that the model may be ahead of what was handed out
MOST_TOKENS = 4  # of a character
LONGEST_STEP = 60.0  # seconds that the end of the thread is waited for
log = getLogger("qualm.serving")


class Caught:
    """A block whose error is kept for whom it concerns, whatever it is: a native library's panic is no Exception."""

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.error = error
        return True


class Worker:
    """A model that is served. `start` once in the event loop, `stop` at the end."""

    def __init__(self, lm: LM, limits: Limits = Limits()):
        self.lm, self.limits = lm, limits
        self.gate = Gate(limits.rows, limits.queue)
        self.flights: set[Flight] = set()  # what somebody waits for
        self.faults = 0
        self.observe: Callable[[Flight], None] = lambda flight: None  # called when an answer ends
        self._loop: asyncio.AbstractEventLoop | None = None
        # of the thread alone, but for reading a number
        self._inbox: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()
        self._ahead = threading.Semaphore(AHEAD)
        self._batch: Batch | None = None
        self._tickets: dict[int, Flight] = {}
        self._thread = threading.Thread(target=self._work, name=f"model {lm.name}", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End everything that is under way."""
        for flight in list(self.flights):
            self._end(flight, Busy("this server is closing", 5, status=503, code="closing"))
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, LONGEST_STEP)

    # -- in the event loop: what requests call

    def ask(self, asked: Iterable[tuple[Prompt, Sampling]]) -> Flights:
        """An answer for each prompt with its sampling. Raises Busy if there is no room for all of them."""
        news = asyncio.Event()
        flights = [Flight(prompt, sampling, news) for prompt, sampling in asked]
        self.gate.enter(len(flights))
        for flight in flights:
            self.gate.begin()
            self.flights.add(flight)
            self._inbox.put(partial(self._join, flight))
        return Flights(flights, news, self.forget, self.limits.answer_seconds)

    def forget(self, flight: Flight) -> None:
        """Nobody waits for this answer any more: its room is free before the next step."""
        if not flight.over:
            self._end(flight)
            self._inbox.put(partial(self._leave, flight))

    async def do(self, work: Callable[[], T]) -> T:
        """Something else that needs the model: done between two steps. Raises Busy if there is no room."""
        self.gate.enter()
        self.gate.begin()
        started = time.monotonic()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._inbox.put(partial(self._job, work, future))
        try:
            return await future
        finally:
            self.gate.end(time.monotonic() - started)

    @property
    def running(self) -> int:
        return self._batch.running if self._batch else 0

    @property
    def waiting(self) -> int:
        return max(0, len(self.flights) - self.running)

    @property
    def held(self) -> float:
        """The share of the slots that running requests may come to use."""
        return self._batch.held / self.limits.slots if self._batch else 0.0

    # -- in the event loop: what the thread hands over

    def _deliver(self, deltas: Sequence[tuple[Flight, Delta]], failed: Sequence[tuple[Flight, BaseException]]) -> None:
        self._ahead.release()
        for flight, delta in deltas:
            if flight.over:  # its client went meanwhile
                continue
            flight.put(delta)
            if delta.completion is not None:
                self._end(flight)
            elif flight.untaken > UNREAD:
                flight.deltas = []
                self.forget(flight)
        for flight, error in failed:
            if not flight.over:
                self._end(flight, error)
        self._give_up()

    def _give_up(self) -> None:
        """End what waited too long for its turn."""
        if len(self.flights) > self.running:
            late = time.monotonic() - self.limits.queue_seconds
            for flight in [flight for flight in self.flights if not flight.began and flight.arrived < late]:
                flight.error = Busy("it waited too long for its turn", self.gate.wait(), 503, "queue_timeout")
                self.forget(flight)

    def _end(self, flight: Flight, error: BaseException | None = None) -> None:
        self.flights.discard(flight)
        self.gate.end(time.monotonic() - flight.arrived)
        flight.end(error)
        self.observe(flight)

    def _answered(self, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        if future.done():  # its client went meanwhile
            return
        if error is not None:
            future.set_exception(refusal_of(error))
        else:
            future.set_result(value)

    # -- in the thread

    def _work(self) -> None:
        while True:
            busy = False
            while not busy and not (self._tickets and self._inbox.empty()):
                command = self._inbox.get()
                if command is None:
                    return
                busy = command()
            if self._tickets:
                self._step()

    def _join(self, flight: Flight) -> bool:
        if flight.over:
            return False
        with Caught() as caught:
            if self._batch is None:
                self._batch = self.lm.batch(self.limits.rows, self.limits.slots)
            self._check(self._batch, flight)
            flight.ticket = self._batch.join(flight.prompt, flight.sampling)
            self._tickets[flight.ticket] = flight
        if caught.error is not None:
            self._hand_over([], [(flight, self._noted(caught.error))])
        return False

    def _check(self, batch: Batch, flight: Flight) -> None:
        """Raises Refusal for a request that would take more room than there is, were it alone."""
        sampling, slots = flight.sampling, self.limits.slots
        if (MOST_TOKENS * len(plain(flight.prompt)) + sampling.max_tokens) * sampling.beams <= slots:
            return
        if (needed := batch.needs(flight.prompt, replace(sampling, shape=None))) > slots:
            why = f"prompt and answer may come to {needed} tokens, and this server has room for {slots}"
            raise Refusal(400, f"{why}; ask for fewer", param="max_tokens", code="too_many_tokens")

    def _leave(self, flight: Flight) -> bool:
        if flight.ticket is not None and self._tickets.pop(flight.ticket, None) is not None:
            with Caught() as caught:
                assert self._batch is not None
                self._batch.leave(flight.ticket)
            if caught.error is not None:
                self._broken(caught.error)
        return False

    def _job(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> bool:
        """Whether it took time: one between two steps."""
        if future.done():
            return False
        value = None
        with Caught() as caught:
            value = work()
        if caught.error is not None:
            self._noted(caught.error)
        self._call(self._answered, future, value, caught.error)
        return True

    def _step(self) -> None:
        deltas: dict[int, Delta] = {}
        with Caught() as caught:
            assert self._batch is not None
            deltas = self._batch.step()
        found = [(self._tickets[ticket], delta) for ticket, delta in deltas.items() if ticket in self._tickets]
        for ticket, delta in deltas.items():
            if delta.completion is not None:
                self._tickets.pop(ticket, None)
        if found:
            self._hand_over(found, [])
        if caught.error is not None:
            self._broken(caught.error)

    def _broken(self, error: BaseException) -> None:
        """A step failed: nobody knows for whom, so all that the batch was at ends, and the next gets a new batch."""
        self._batch, failed = None, list(self._tickets.values())
        self._tickets.clear()
        self._noted(error)
        self._hand_over([], [(flight, error) for flight in failed])

    def _noted(self, error: BaseException) -> BaseException:
        refusal = refusal_of(error)
        if refusal.status == 500 or refusal.code == NO_MEMORY:
            self.faults += 1
            log.error("the model failed", exc_info=error, extra={"model": self.lm.name})
        return error

    def _hand_over(
        self, deltas: Sequence[tuple[Flight, Delta]], failed: Sequence[tuple[Flight, BaseException]]
    ) -> None:
        self._ahead.acquire(timeout=LONGEST_STEP)
        self._call(self._deliver, deltas, failed)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)
