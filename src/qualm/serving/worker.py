"""One model behind a queue: a thread of its own alone touches it, and steps its batch while there is something to do.

All else happens in the event loop, so nothing here needs a lock. What the model's thread raises comes back as the value
of a future: a fault in it ends the answers that it was at, and nothing more.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from logging import getLogger
from typing import Any, TypeVar

from qualm.cases import Prompt
from qualm.lm.base import LM, Sampling
from qualm.lm.batch import Batch
from qualm.serving.admission import Gate
from qualm.serving.errors import Busy, Refusal, refusal_of
from qualm.serving.flights import Flight, Flights
from qualm.serving.settings import Limits

T = TypeVar("T")
UNREAD = 4096  # deltas that may wait for a client; one that lets more come together has gone to sleep
log = getLogger("qualm.serving")


async def settled(thread: ThreadPoolExecutor, work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What `work` gives in the model's thread, or what it raises: anything, also what is no Exception."""
    future = asyncio.wrap_future(thread.submit(work))
    await asyncio.wait([future])
    error = future.exception()
    return (None, error) if error is not None else (future.result(), None)


class Worker:
    """A model that is served. `start` once in the event loop, `stop` at the end."""

    def __init__(self, lm: LM, limits: Limits = Limits()):
        self.lm, self.limits = lm, limits
        self.gate = Gate(limits.rows, limits.queue)
        self.flights: dict[int, Flight] = {}  # by ticket: what the batch knows of
        self._joining: deque[Flight] = deque()
        self._leaving: list[int] = []
        self._jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._batch: Batch | None = None
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._pump: asyncio.Task[None] | None = None
        self.faults = 0
        self.observe: Callable[[Flight], None] = lambda flight: None  # called when an answer ends

    def start(self) -> None:
        self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"pump of {self.lm.name}")

    async def stop(self) -> None:
        """End everything that is under way."""
        for flight in (*self._joining, *self.flights.values()):
            flight.end(Busy("this server is closing", 5, status=503, code="closing"))
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- what requests call

    def ask(self, asked: Iterable[tuple[Prompt, Sampling]]) -> Flights:
        """An answer for each prompt with its sampling. Raises Busy if there is no room for all of them."""
        news = asyncio.Event()
        flights = [Flight(prompt, sampling, news) for prompt, sampling in asked]
        self.gate.enter(len(flights))
        for flight in flights:
            self.gate.begin()
            self._joining.append(flight)
        self._wake.set()
        return Flights(flights, news, self.forget, self.limits.answer_seconds)

    def forget(self, flight: Flight) -> None:
        """Nobody waits for this answer any more: its room is free before the next step."""
        if flight.over:
            return
        if flight in self._joining:
            self._joining.remove(flight)
        elif flight.ticket is not None:
            del self.flights[flight.ticket]
            self._leaving.append(flight.ticket)
            self._wake.set()
        self._done(flight)
        flight.end()

    async def do(self, work: Callable[[], T]) -> T:
        """Something else that needs the model: done between two steps. Raises Busy if there is no room."""
        self.gate.enter()
        self.gate.begin()
        started = time.monotonic()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((work, future))
        self._wake.set()
        try:
            return await future
        finally:
            self.gate.end(time.monotonic() - started)

    @property
    def running(self) -> int:
        return self._batch.running if self._batch else 0

    @property
    def waiting(self) -> int:
        return len(self._joining) + (self._batch.waiting if self._batch else 0)

    @property
    def held(self) -> float:
        """The share of the slots that running requests may come to use."""
        return self._batch.held / self.limits.slots if self._batch else 0.0

    # -- the pump

    async def _run(self) -> None:
        while True:
            if not (self._joining or self._leaving or self._jobs or self.flights):
                self._wake.clear()
                await self._wake.wait()
            await self._leave()
            await self._join()
            await self._job()
            if self.flights:
                await self._step()

    async def _leave(self) -> None:
        while self._leaving and self._batch is not None:
            ticket = self._leaving.pop()
            batch = self._batch
            _, error = await settled(self._thread, lambda: batch.leave(ticket))  # noqa: B023  # run before the next
            if error is not None:
                self._broken(error)
        self._leaving.clear()

    async def _join(self) -> None:
        while self._joining:
            flight = self._joining.popleft()
            ticket, error = await settled(self._thread, lambda: self._joined(flight))  # noqa: B023
            if flight.over:  # its client went meanwhile
                self._leaving += [] if ticket is None else [ticket]
            elif ticket is None:
                self._failed(flight, error)
            else:
                flight.ticket, self.flights[ticket] = ticket, flight

    def _joined(self, flight: Flight) -> int:
        if self._batch is None:
            self._batch = self.lm.batch(self.limits.rows, self.limits.slots)
        return self._batch.join(flight.prompt, flight.sampling)

    async def _job(self) -> None:
        if not self._jobs:
            return
        work, future = self._jobs.popleft()
        if future.done():  # its client went meanwhile
            return
        value, error = await settled(self._thread, work)
        if future.done():
            return
        if error is not None:
            self._note(error)
            future.set_exception(refusal_of(error))
        else:
            future.set_result(value)

    async def _step(self) -> None:
        batch = self._batch
        assert batch is not None
        deltas, error = await settled(self._thread, batch.step)
        if error is not None:
            self._broken(error)
        for ticket, delta in (deltas or {}).items():
            flight = self.flights.get(ticket)
            if flight is None:
                continue
            flight.put(delta)
            if delta.completion is not None:
                del self.flights[ticket]
                self._done(flight)
                flight.end()
            elif len(flight.deltas) > UNREAD:
                flight.deltas = []
                self.forget(flight)
        if error is None:
            self._give_up()

    def _give_up(self) -> None:
        """End what waited too long for its turn."""
        now = time.monotonic()
        late = [f for f in self.flights.values() if not f.began and now - f.arrived > self.limits.queue_seconds]
        if self.waiting:
            for flight in late:
                flight.error = Busy("it waited too long for its turn", self.gate.wait(), 503, "queue_timeout")
                self.forget(flight)

    def _broken(self, error: BaseException) -> None:
        """A step failed: nobody knows for whom, so all that the batch was at ends, and the next gets a new batch."""
        self._batch = None
        for flight in list(self.flights.values()):
            self._failed(flight, error)
        self.flights.clear()

    def _failed(self, flight: Flight, error: BaseException | None) -> None:
        self._note(error)
        self._done(flight)
        flight.end(error or Refusal(500, "the model took no request", code="internal_error"))

    def _note(self, error: BaseException | None) -> None:
        if error is not None and refusal_of(error).status == 500:
            self.faults += 1
            log.error("the model failed", exc_info=error, extra={"model": self.lm.name})

    def _done(self, flight: Flight) -> None:
        self.gate.end(time.monotonic() - flight.arrived)
        self.observe(flight)
