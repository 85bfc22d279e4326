"""The records of audits and proofs that lie in a folder: which there are, what one says, and its cases.

A record is named by where it lies; only what a walk through the folder found can be asked for, so that no name leads
out of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qualm.auditing.record import RECORD, ROWS
from qualm.errors import InputError
from qualm.files import read_json
from qualm.serving.errors import Refusal

DEPTH = 4  # folders below the one that was given
MOST = 1000  # records
HERE = "."
REPORTS = ("report.html",)


class Audits:
    """The records below `folder`; none if there is no folder."""

    def __init__(self, folder: Path | None):
        self.folder = folder.resolve() if folder else None

    def places(self) -> dict[str, Path]:
        """Folders that hold a record, by name: the path to them with ':' between its parts."""
        if self.folder is None:
            return {}
        found: dict[str, Path] = {}
        for path in self._walk(self.folder, DEPTH):
            name = ":".join(path.relative_to(self.folder).parts) or HERE
            found[name] = path
            if len(found) == MOST:
                break
        return found

    def _walk(self, folder: Path, depth: int) -> Iterator[Path]:
        if (folder / RECORD).is_file() and not (folder / RECORD).is_symlink():
            yield folder
        if depth:
            for child in sorted(folder.iterdir()):
                if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                    yield from self._walk(child, depth - 1)

    def list(self) -> list[dict[str, Any]]:
        """What there is, in short; a damaged record is left out."""
        found = []
        for name, path in self.places().items():
            try:
                record = read_json(path / RECORD)
            except InputError:
                continue
            if isinstance(record, dict):
                found.append({"id": name, **summary(record), "report": self._report(path) is not None})
        return found

    def find(self, name: str) -> Path:
        place = self.places().get(name)
        if place is None:
            raise Refusal(404, "there is no such record here", param="id", code="audit_not_found")
        return place

    def record(self, name: str) -> dict[str, Any]:
        """What record.json holds."""
        try:
            found = read_json(self.find(name) / RECORD)
        except InputError as error:
            raise Refusal(404, f"this record cannot be read: {error.what}", param="id", code="audit_damaged") from error
        return {"id": name, **found}

    def cases(self, name: str, probe: str, start: int, count: int) -> dict[str, Any]:
        """`count` of its cases from number `start` on, those of one probe or of all, each a line of rows.jsonl."""
        path, cases, number = self.find(name) / ROWS, [], 0
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                for line in file:
                    case = _case(line)
                    if probe and case.get("probe") != probe:
                        continue
                    if start <= number < start + count:
                        cases.append(case)
                    number += 1
        return {"object": "list", "id": name, "data": cases, "total": number, "start": start}

    def report(self, name: str) -> bytes:
        """Its page. Raises Refusal if none lies beside it."""
        path = self._report(self.find(name))
        if path is None:
            raise Refusal(404, "no report lies beside this record", param="id", code="report_not_found")
        return path.read_bytes()

    def _report(self, place: Path) -> Path | None:
        return next((place / name for name in REPORTS if (place / name).is_file()), None)


def _case(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise Refusal(404, "its cases are damaged", param="id", code="audit_damaged") from error
    return found if isinstance(found, dict) else {}


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Of an audit its subject and probes, of a proof its mend and verdicts."""
    changes, measurements = record.get("changes"), record.get("measurements")
    said = {"object": "audit", "schema": record.get("schema"), "seconds": record.get("seconds")}
    if isinstance(changes, list):
        mend = record.get("mend")
        return {**said, "object": "proof", "mend": mend, "summary": record.get("summary"), "changes": len(changes)}
    return {**said, "subject": record.get("subject"), "measurements": len(measurements or [])}
