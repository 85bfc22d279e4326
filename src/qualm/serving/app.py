"""The routes. Each finds its model, asks it through the worker, and answers in OpenAI's shape."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from qualm import __version__
from qualm.serving import answering, extras, page, understanding
from qualm.serving.around import Around
from qualm.serving.chat import Chat
from qualm.serving.completions import Completions
from qualm.serving.errors import Busy, Refusal, of_http, of_validation
from qualm.serving.house import House
from qualm.serving.knowledge import owner
from qualm.serving.schema import ChatBody, CompletionBody, ErrorBody

REFUSALS = {401: "no key", 403: "not for this key", 404: "no such model", 408: "too slow", 413: "body too large"}
REFUSALS |= {400: "a request that cannot be answered", 429: "no room now: see Retry-After", 503: "no room, or closing"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": why} for status, why in sorted(REFUSALS.items())
}
STREAMED: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    200: {"description": "the answer; with stream, server-sent events", "content": {"text/event-stream": {}}},
}
Name = Annotated[str, Path(max_length=1024)]


def build(house: House) -> ASGIApp:
    """The application of a server, with all that stands around it."""

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        house.start()
        yield
        await house.stop()

    app = FastAPI(
        title="Qualm", version=__version__, lifespan=life, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.house = house
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    about(app, house)
    asked(app, house)
    extras.routes(app, house, RESPONSES)
    understanding.routes(app, house, RESPONSES)
    page.mount(app)
    return Around(app, house)


def about(app: FastAPI, house: House) -> None:
    """The routes that tell of the server."""

    @app.get("/health", responses={503: RESPONSES[503]})
    async def health() -> dict[str, str]:
        """Whether it takes requests: 503 while it is closing. Needs no key."""
        if house.draining:
            raise Busy("this server is closing", 5, status=503, code="closing")
        return {"status": "ok"}

    @app.get("/ready", responses=RESPONSES)
    async def ready() -> dict[str, str]:
        """Whether there is room for one more request: 503 while the queue of every model is full."""
        try:
            house.room()
        except Busy as busy:
            raise Busy(busy.message, busy.retry_after, status=503) from busy
        return {"status": "ready"}

    @app.get("/version", responses=RESPONSES)
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/metrics", responses={**RESPONSES, 200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(house.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", responses=RESPONSES)
    async def models(request: Request) -> dict[str, Any]:
        key = request.scope["state"]["key"]
        data = [served.entry() for name, served in house.models.items() if key is None or key.may_ask(name)]
        return {"object": "list", "data": data}

    @app.get("/v1/models/{name:path}", responses=RESPONSES)
    async def model(request: Request, name: Name) -> dict[str, Any]:
        return house.model(name, request.scope["state"]["key"]).entry()


def asked(app: FastAPI, house: House) -> None:
    """The routes that write."""

    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat(request: Request, body: ChatBody) -> Response:
        """Answer messages."""
        served = answering.model(house, request, body)
        made = Chat(served, body, house.limits.choices)
        if body.knowledge:
            library = house.knowledge.find(owner(request), body.knowledge)
            made.reads(await run_in_threadpool(library.passages))
        return await answering.answer(request, made, bool(body.stream))

    @app.post("/v1/completions", responses=STREAMED)
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Continue texts, or read them back with their log-probabilities (`echo`)."""
        served = answering.model(house, request, body)
        made = Completions(served, body, house.limits.choices)
        if body.echo:
            return await answering.echo(request, made)
        return await answering.answer(request, made, bool(body.stream))


async def refused(request: Request, error: Refusal) -> JSONResponse:
    return error.response(request.scope["state"]["request_id"])


async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return of_validation(error).response()


async def http(request: Request, error: HTTPException) -> JSONResponse:
    response = of_http(error).response()
    response.headers.update(error.headers or {})
    return response


async def failed(request: Request, error: Exception) -> JSONResponse:
    return Refusal(500, "something went wrong here", code="internal_error").response(
        request.scope["state"]["request_id"]
    )


HANDLERS: dict[type[Exception], Any] = {
    Refusal: refused,
    RequestValidationError: invalid,
    HTTPException: http,
    Exception: failed,
}
