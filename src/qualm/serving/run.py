"""A server's life: bound, serving, drained, gone."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from qualm.errors import UsageError
from qualm.lm.base import LM
from qualm.mends.apply import load
from qualm.serving.app import build
from qualm.serving.house import House
from qualm.serving.keys import Keys, given
from qualm.serving.protocol import with_limits
from qualm.serving.served import Models
from qualm.serving.settings import Limits, check_address

BACKLOG = 2048  # connections that wait to be taken
HEAD = 64 * 2**10  # bytes of a request's head


class Server(uvicorn.Server):
    """uvicorn's server, which on SIGTERM or Ctrl-C answers 503 at once, and ends when what is under way is done."""

    def __init__(self, house: House, app: ASGIApp):
        protocol = with_limits(house.limits)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=HEAD,
            timeout_graceful_shutdown=max(1, int(house.limits.drain_seconds)),
        )
        super().__init__(config)
        self.house, self.asked_at = house, 0.0
        house.crowded = lambda: len(self.server_state.connections) > house.limits.connections

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second one ends at once."""
        self.force_exit = self.should_exit = self.house.draining
        self.drain()

    def drain(self) -> None:
        self.asked_at = self.asked_at or time.monotonic()
        self.house.close()

    async def on_tick(self, counter: int) -> bool:
        if self.house.draining:
            spent = time.monotonic() - self.asked_at
            self.should_exit = self.should_exit or not self.house.inside or spent > self.house.limits.drain_seconds
        return await super().on_tick(counter)


def serve(
    *models: str | Path | LM,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Keys | str | None = None,
    audits: Path | str | None = None,
    limits: Limits = Limits(),
) -> None:
    """Serve models until SIGTERM or Ctrl-C. Each is a model, or the spec of one; it goes by its own name.

    `keys` are those of a file (`qualm.serving.keys.Keys.read`), or one key. Raises UsageError if strangers could reach
    the server without one, or if the port is taken.
    """
    known = given(keys) if isinstance(keys, str) else None
    held = Keys([known]) if known else keys if isinstance(keys, Keys) else Keys()
    lms = [load(model) for model in models]
    check_address(host, port, bool(held))
    with bound(host, port) as listening:
        run(House(Models(lms, limits), limits, held, Path(audits) if audits else None), listening)


def run(house: House, listening: socket.socket) -> None:
    """Serve until told to stop."""
    Server(house, build(house)).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror}", where="--port", then="name another port, or 0 for any"
        ) from error
    return listening


@contextlib.contextmanager
def background(
    models: Sequence[LM] | Mapping[str, LM], limits: Limits = Limits(), keys: Keys = Keys(), audits: Path | None = None
) -> Iterator["Running"]:
    """Serve models for the length of a with-block, from a thread, at any free port of this machine."""
    house = House(Models(models, limits), limits, keys, audits)
    running = Running(house)
    running.thread.start()
    try:
        running.wait()
        yield running
    finally:
        running.server.should_exit = True
        running.thread.join()
        running.listening.close()


class Running:
    """A server in a thread; `url` is where clients ask."""

    def __init__(self, house: House):
        self.house, self.listening = house, bound("127.0.0.1", 0)
        self.server = Server(house, build(house))
        self.host, self.port = self.listening.getsockname()[:2]
        self.url = f"http://{self.host}:{self.port}/v1"
        self.thread = threading.Thread(target=self._run, name="server", daemon=True)

    def _run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.listening]))

    def wait(self) -> None:
        """Until it takes requests. Raises UsageError if it ended first."""
        while not self.server.started:
            if not self.thread.is_alive():
                raise UsageError("the server did not start")
            time.sleep(0.005)
