"""HTTP with deadlines: a head or a body that does not come, and an answer that is not taken, end the connection.

uvicorn itself waits for all three for ever.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from qualm.serving.errors import Refusal
from qualm.serving.settings import Limits

LATE = Refusal(408, "the request did not come in time", code="request_timeout")
GARBLED = Refusal(400, "this is no HTTP request that can be read", code="invalid_http")
UNTAKEN = 128 * 2**10  # bytes that the system may keep of what a client has not taken yet
PHASES: Mapping[Any, str] = {h11.IDLE: "head", h11.SEND_BODY: "body"}  # by what the client is at


class Deadlines(H11Protocol):
    """uvicorn's protocol with the deadlines of `limits`."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.phase = ""
        self.timer: asyncio.TimerHandle | None = None
        self.stalled: asyncio.TimerHandle | None = None
        wire = transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.stalled or self._later(self.limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._later(self.limits.stall_seconds, self.transport.abort)  # what it has not taken by then

    def send_400_response(self, msg: str) -> None:
        self._refuse(GARBLED)

    def _watch(self) -> None:
        """Set the deadline of what the client has to send next, if that changed."""
        phase = "" if self.transport.is_closing() else PHASES.get(self.conn.their_state, "")
        if phase == self.phase:
            return
        self.phase = phase
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self._later(self.limits.head_seconds, self._late) if phase else None

    def _late(self) -> None:
        idle = self.phase == "head" and self.cycle is not None and not self.conn.trailing_data[0]
        if not idle:  # uvicorn's own deadline is for a connection that is kept open and silent
            self._refuse(LATE)

    def _refuse(self, refusal: Refusal) -> None:
        """Say why, if nothing was said yet, and hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR) and not self.transport.is_closing():
            body = json.dumps(refusal.document()).encode()
            phrase = "Request Timeout" if refusal.status == 408 else "Bad Request"
            lines = [
                f"HTTP/1.1 {refusal.status} {phrase}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
        self._later(self.limits.stall_seconds, self.transport.abort)

    def _later(self, seconds: float, act: Callable[[], Any]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, act)

    def _stop(self) -> None:
        for timer in (self.timer, self.stalled):
            if timer is not None:
                timer.cancel()


def with_limits(limits: Limits) -> type[Deadlines]:
    return type("Protocol", (Deadlines,), {"limits": limits})
