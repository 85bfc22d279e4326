"""The account of a collection: a line a file in `collected.jsonl`, and sums in the manifest."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qualm.corpus.formats.base import Taken
from qualm.corpus.taking import TellTaken
from qualm.errors import InputError
from qualm.files import hash_file, read_json, write_json, writing

NAME = "collected.jsonl"
_SUMS = ("documents", "records", "mended", "bad")
_NAMED = 100  # files that were skipped, named in the manifest; all are in the account


def ignored(taken: Taken) -> None:
    """For those who do not ask."""


@dataclass
class Account:
    """What became of all files. `add` is what `collect` tells; `write` gets each."""

    write: TellTaken = ignored
    files: int = 0
    skipped: int = 0
    sums: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_SUMS, 0)))
    formats: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, taken: Taken) -> None:
        self.files += 1
        self.sums.update({name: getattr(taken, name) for name in _SUMS})
        self.formats.update([taken.format] if taken.format else [])
        if taken.reason:
            self.skipped += 1
            if len(self.reasons) < _NAMED:
                self.reasons[taken.name] = taken.reason
        self.write(taken)

    @property
    def told(self) -> dict[str, Any]:
        """The sums, the formats, and the files that were skipped or cut short, with their reasons."""
        formats = dict(sorted(self.formats.items()))
        return {"files": self.files, **self.sums, "skipped": self.skipped, "formats": formats, "reasons": self.reasons}

    def check(self, most: float) -> None:
        """Raises InputError if more than this share of the records could not be used."""
        bad, records = self.sums["bad"], self.sums["records"]
        if bad > most * max(records, 1):
            what = f"{bad} of {records} records cannot be used, more than {most:.0%}"
            raise InputError(what, where=NAME, then="see there for their lines; mend them, or raise --most-bad")


@contextmanager
def accounting(folder: Path) -> Iterator[Account]:
    """An account that is written to a folder as well, whole when all is done; its sums go into the manifest there."""
    with writing(folder / NAME) as lines:

        def write(taken: Taken) -> None:
            lines.write(json.dumps(dataclasses.asdict(taken), ensure_ascii=False) + "\n")

        account = Account(write)
        yield account
    manifest = folder / "manifest.json"
    if manifest.exists():
        told = {**account.told, "sha256": hash_file(folder / NAME)}
        write_json(manifest, {**read_json(manifest), "collected": told})
