"""What the figures of learning share: a table whose cells know how sure they are, and the data sets."""

import csv
import gzip
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qualm.auditing.intervals import Compared, Estimate

Cell = str | Estimate | Compared | None


@dataclass
class Figure:
    """A table: what was measured, on what, and a row a subject."""

    name: str
    about: str
    heads: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # (step, bits a byte)

    def add(self, *cells: Cell) -> None:
        """Also prints the row, so that a long run can be watched."""
        self.rows.append(cells)
        print(" | ".join(map(worded, cells)), flush=True)

    def table(self) -> str:
        lines = [self.heads, ["---"] * len(self.heads), *[[worded(cell) for cell in row] for row in self.rows]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plain(self) -> dict[str, Any]:
        rows = [[plain(cell) for cell in row] for row in self.rows]
        return {"name": self.name, "about": self.about, "heads": self.heads, "rows": rows, "curves": self.curves}


def worded(cell: Cell) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    estimate = cell.estimate if isinstance(cell, Compared) else cell
    low, high = estimate.bounds()
    sign = "+" if isinstance(cell, Compared) else ""
    return f"{estimate.value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def plain(cell: Cell) -> Any:
    if cell is None or isinstance(cell, str):
        return cell
    estimate = cell.estimate if isinstance(cell, Compared) else cell
    low, high = estimate.bounds()
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n, "method": estimate.method}


def opened(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, packed or not."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding=encoding) as file:
            return file.read()
    return path.read_text(encoding=encoding)


def sotu(shared: Path) -> dict[str, str]:
    """The addresses on the State of the Union, by year and president."""
    text = opened(shared / "text-sotu" / "sotu_1790_on.txt.gz")
    parts = re.split(r"^(\d{4}_[a-z0-9_.\-]+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def labelled(path: Path, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """(text, label) of SST-2's lines: a label, a space, a text."""
    return [(line[2:], line[0]) for line in opened(path, encoding).splitlines() if line.strip()]


def hotels(shared: Path) -> list[tuple[str, str]]:
    """(text, label) of ChnSentiCorp's hotel reviews, without blank ones and repetitions."""
    rows = csv.DictReader(opened(shared / "sent-zh" / "ChnSentiCorp_htl_all.csv.gz").splitlines())
    return list({row["review"]: (row["review"], row["label"]) for row in rows if row["review"]}.values())
