"""Ctrl-C or SIGTERM once: save and stop. Twice: stop now."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

from qualm.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SEVERAL = "RANK"  # set where several processes train together
TERMINATED = 128 + signal.SIGTERM
REMINDER = 0.2  # seconds in which a signal should have been looked at
_heard = threading.Event()  # SIGTERM was looked at


class Interrupted(Stopped):
    """Stopped by Ctrl-C, after saving."""

    exit_code: ClassVar[int] = 128 + signal.SIGINT


class Terminated(BaseException):
    """SIGTERM: leave now, cleaning up on the way."""


def hear() -> None:
    """Note that somebody looks after SIGTERM, so that it is not sent again."""
    _heard.set()


def _terminate(number: int, frame: FrameType | None) -> None:
    hear()
    raise Terminated


def leave_on_sigterm() -> None:
    """SIGTERM unwinds the stack (so temporary files go) in place of killing the process.

    A signal that comes just before a call that blocks, a read of stdin say, is noted, and not looked at until that call
    ends. So a thread reads what was noted and, if nobody has looked, sends it again, which ends the call.
    """
    signal.signal(signal.SIGTERM, _terminate)
    noted, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what a child hears is not for this process
    threading.Thread(target=_remind, args=(noted,), name="signals", daemon=True).start()


def _remind(noted: int) -> None:
    while numbers := os.read(noted, 64):
        time.sleep(REMINDER)
        if signal.SIGTERM in numbers and not _heard.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


class Stop:
    """Called by work that can save and stop: has someone asked for it?

    As a context it takes the two signals. A second one is acted on at once, as if this were not here. With `quiet`
    nothing is said of it: another process speaks. What started this process being gone counts as asking.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.parent = quiet, os.getppid()
        self.asked: int | None = None
        self.before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.asked is not None or (SEVERAL in os.environ and os.getppid() != self.parent)

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._restore()
        if self.asked == signal.SIGINT and isinstance(error, Stopped):
            raise Interrupted(error.what, where=error.where, then=error.then) from error

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        hear()
        self._restore()
        if not self.quiet:
            print("\nqualm: saving, then stopping (once more to stop now)", file=sys.stderr, flush=True)
