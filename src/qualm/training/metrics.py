"""metrics.jsonl: one row a step, cut back to the checkpoint that a run goes on from."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qualm.errors import QualmError
from qualm.files import writing


class Metrics:
    """Rows appended to a file; none is there twice after a resume from `step`."""

    def __init__(self, path: Path, step: int):
        self.path = path
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if _step(line) <= step]
            with writing(path, "wb") as file:
                file.writelines(kept)
        self.file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Raises QualmError if the disk is full."""
        try:
            self.file.write(json.dumps(row, allow_nan=False) + "\n")
            self.file.flush()
        except OSError as error:
            raise QualmError(f"cannot write: {error.strerror}", where=str(self.path), then="free some space") from error

    def sync(self) -> None:
        """Rows up to here survive a power cut; called before a checkpoint is taken."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """What a full disk did not take was told of when it was written."""
        with suppress(OSError):
            self.file.close()


def _step(line: bytes) -> float:
    """The step of a row; infinity for one that was cut off, so that it goes."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else float("inf")
    except ValueError:
        return float("inf")
