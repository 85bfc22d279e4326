"""How an answer is waited for: as a whole or in pieces, never for a client that has gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from fastapi import Request
from starlette.responses import JSONResponse, Response

from qualm.lm.batch import Delta
from qualm.serving.completions import Completions
from qualm.serving.errors import Refusal, refusal_of
from qualm.serving.flights import Flights
from qualm.serving.house import House
from qualm.serving.replies import Json
from qualm.serving.schema import Body
from qualm.serving.served import Served
from qualm.serving.stream import Events, watching

PATIENCE = 5.0  # seconds in which the first piece decides between an error's status and the beginning of a stream

T = TypeVar("T")


class Made(Protocol):
    """A request that was read: what it asks of the model, and the replies made of that."""

    def ask(self) -> Flights: ...
    def whole(self, flights: Flights) -> Json: ...
    def events(self, flights: Flights, first: list[tuple[int, Delta]]) -> AsyncIterator[list[Json]]: ...


def model(house: House, request: Request, body: Body) -> Served:
    """The model that a body names. What the body holds besides its known fields is told in a header."""
    state = request.scope["state"]
    state["ignored"] = body.ignored
    served = house.model(getattr(body, "model", ""), state["key"])
    state["model"] = served.name
    return served


async def answer(request: Request, made: Made, stream: bool) -> Response:
    """The reply, or a stream of it. Raises Refusal before anything is sent."""
    flights = made.ask()
    try:
        if stream:
            async with watching(request.receive, flights.leave):
                first = await flights.next(PATIENCE)
            return Events(made.events(flights, first), flights.leave, request.scope["state"]["request_id"])
        async with watching(request.receive, flights.leave):
            await flights.all()
        return JSONResponse(made.whole(flights))
    except BaseException:
        flights.leave()
        raise


async def echo(request: Request, made: Completions) -> Response:
    """Texts read back, and gone on with if there are tokens to write."""
    echoes = await here(request, made.echo)
    flights = made.ask() if made.most else None
    try:
        if flights is not None:
            async with watching(request.receive, flights.leave):
                await flights.all()
        return JSONResponse(made.reply(flights, echoes))
    except BaseException:
        if flights is not None:
            flights.leave()
        raise


async def here(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, unless the client goes: then it is cancelled, and Refusal raised."""
    task = asyncio.ensure_future(work())
    async with watching(request.receive, task.cancel):
        await asyncio.wait([task])
    if task.cancelled():
        raise Refusal(499, "the client is gone", code="client_closed_request")
    error = task.exception()
    if error is not None:
        raise refusal_of(error) from error
    return task.result()
