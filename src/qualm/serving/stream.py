"""Server-sent events as OpenAI sends them, and what happens when the client goes before the end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from qualm.serving.errors import Refusal

KEEP_ALIVE = 15.0  # seconds of silence after which a comment is sent, so that nothing in between hangs up
DONE = "data: [DONE]\n\n"
COMMENT = ": keep-alive\n\n"

Event = Mapping[str, Any]


def event(value: Event) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


@contextlib.asynccontextmanager
async def watching(receive: Receive, gone: Callable[[], object]) -> AsyncIterator[None]:
    """Call `gone` if the client goes before this ends. The body must have been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


class Events(Response):
    """A stream of events, those together that came together; none of them stands for a keep-alive.

    An error in the middle is an event too.

    `leave` is called when it ends, whether all was sent or the client went.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[Sequence[Event]], leave: Callable[[], object], request_id: str = ""):
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.events, self.leave, self.request_id = events, leave, request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with watching(receive, self.leave):
                async for text in self._texts():
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.leave()

    async def _texts(self) -> AsyncIterator[str]:
        try:
            async for each in self.events:
                yield "".join(map(event, each)) or COMMENT
        except Refusal as refusal:
            yield event(refusal.document(self.request_id))
        yield DONE
