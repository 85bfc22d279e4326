"""What a run leaves to be read, each cut back to the checkpoint that it goes on from: metrics.jsonl, one row a step,
and the same for TensorBoard. What a person should know of is in log.jsonl, which is never cut.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from qualm.files import changing, writing
from qualm.training import events

ROWS, LOG = "metrics.jsonl", "log.jsonl"
TAGS = {
    "loss": "train/loss",
    "bits_per_byte": "train/bits_per_byte",
    "lr": "train/lr",
    "norm": "train/norm",
    "tokens_per_second": "train/tokens_per_second",
    "peak_share": "train/peak_share",
    "validation": "eval/validation",
}


class Metrics:
    """Files in `folder` that are appended to; no row is there twice after a resume from `step`."""

    def __init__(self, folder: Path, step: int):
        rows, board = folder / ROWS, folder / events.NAME
        if rows.exists():
            kept = [line for line in rows.read_bytes().splitlines(keepends=True) if _step(line) <= step]
            with writing(rows, "wb") as file:
                file.writelines(kept)
        with writing(board, "wb") as file:
            file.write(events.until(board, step))
        with changing(folder):
            self.rows, self.board = rows.open("ab"), board.open("ab")

    def write(self, row: Mapping[str, Any]) -> None:
        """Raises QualmError if the disk is full."""
        shown = {tag: row[name] for name, tag in TAGS.items() if row.get(name) is not None}
        _append(self.rows, _line(row))
        _append(self.board, events.scalars(row["step"], shown))

    def sync(self) -> None:
        """Rows up to here survive a power cut; called before a checkpoint is taken."""
        os.fsync(self.rows.fileno())
        os.fsync(self.board.fileno())

    def close(self) -> None:
        """What a full disk did not take was told of when it was written."""
        for file in (self.rows, self.board):
            with suppress(OSError):
                file.close()


def logged(folder: Path, on_event: Callable[[str], None]) -> Callable[[str], None]:
    """What tells an event and keeps it in the folder's log.jsonl, with the time."""

    def tell(event: str) -> None:
        on_event(event)
        with changing(folder / LOG), (folder / LOG).open("ab") as file:
            _append(file, _line({"when": datetime.now(UTC).isoformat(timespec="seconds"), "event": event}))

    return tell


def _append(file: IO[bytes], data: bytes) -> None:
    with changing(file.name):
        file.write(data)
        file.flush()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file; none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, allow_nan=False) + "\n").encode()


def _step(line: bytes) -> float:
    """The step of a row; infinity for one that was cut off, so that it goes."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else float("inf")
    except ValueError:
        return float("inf")
