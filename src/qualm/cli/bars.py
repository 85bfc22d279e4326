"""Progress on stderr: a bar that moves at a terminal, one plain line every half minute elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from qualm.cli.common import Common, console, is_lively

SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Progress of one piece of work, or of several one after the other.

    `update` says how far it is and what to show beside it; a new `title` begins a new bar.
    """

    def __init__(self, common: Common):
        self.silent = common.quiet
        self.rich: Progress | None = None
        if not self.silent and is_lively(sys.stderr):
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
            self.rich = Progress(*columns, TimeRemainingColumn(), console=console(sys.stderr))
        self.task: TaskID | None = None
        self.title, self.began, self.spoke = "", 0.0, 0.0

    def __enter__(self) -> Self:
        if self.rich:
            self.rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.rich:
            self.rich.stop()

    def update(self, title: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `title` are done."""
        if self.silent:
            return
        if title != self.title:
            self.title, self.began = title, time.monotonic()
            self.spoke = self.began
            self.task = self.rich.add_task(title, total=total, note="") if self.rich else None
        if self.rich and self.task is not None:
            self.rich.update(self.task, completed=done, total=total, note=note)
        elif self._is_time(done, total):
            print(self._line(done, total, note), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A remark above the bar."""
        if self.rich:
            self.rich.console.print(text, markup=False, highlight=False)
        elif not self.silent:
            print(text, file=sys.stderr, flush=True)

    def _is_time(self, done: int, total: int) -> bool:
        now = time.monotonic()
        if now - self.spoke < SECONDS_BETWEEN_LINES and done < total:
            return False
        self.spoke = now
        return True

    def _line(self, done: int, total: int, note: str) -> str:
        elapsed = time.monotonic() - self.began
        left = elapsed * (total - done) / done if done else 0.0
        parts = [f"{self.title} {done}/{total}", note, f"{seconds(left)} left" if left else f"{seconds(elapsed)}"]
        return "  ".join(part for part in parts if part)


def seconds(value: float) -> str:
    """75.0 -> "1:15"."""
    return f"{int(value) // 60}:{int(value) % 60:02d}"
