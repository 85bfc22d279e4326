"""What the figures of learning share: a table whose cells know how sure they are, and the data sets."""

import csv
import gzip
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qualm.auditing.intervals import Compared, Estimate, Reduce, compare, interval
from qualm.files import hash_json, read_json, write_json

Cell = str | Estimate | Compared | None
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What to measure: with `budget` below 1, each model gets that share of the usual passes or updates.

    What was measured is kept in `work` and not measured again; with `show`, nothing that is not there is measured.
    """

    shared: Path
    work: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: float = 1.0
    only: str = ""  # measure the subjects whose name holds this, and the baselines
    show: bool = False

    def steps(self, usual: int) -> int:
        return max(1, round(usual * self.budget))

    def wants(self, name: str) -> bool:
        return self.only in name

    def folder(self, name: str, made_of: Any) -> Path:
        """Of a subject and all that decides what it is: what is found there can be gone on with."""
        found = self.work / f"{re.sub(r'[^0-9A-Za-z]+', '-', name).strip('-')}-{hash_json(made_of)[:8]}"
        found.mkdir(parents=True, exist_ok=True)
        return found

    def once(self, name: str, made_of: Any, measure: Callable[[Path], Columns]) -> "Measured | None":
        """What `measure` finds for a subject, given a folder to work in: read, if it was measured before."""
        folder = self.folder(name, made_of)
        if not (path := folder / "measured.json").exists():
            if self.show:
                return None
            began = time.process_time()
            found = {key: values.tolist() for key, values in measure(folder).items()}
            write_json(path, {"seconds": time.process_time() - began, "columns": found})
            print(f"{name}: {time.process_time() - began:.0f} s", flush=True)
        kept = read_json(path)
        return Measured({key: np.array(values, float) for key, values in kept["columns"].items()}, kept["seconds"])


@dataclass(frozen=True)
class Measured:
    """Numbers a case, and the processor seconds that they took (of the last start, where there were several)."""

    columns: Columns
    seconds: float


@dataclass(frozen=True)
class Seeds:
    """A subject measured with several seeds on the same cases.

    Its reading pools the seeds; the interval is over cases, all readings of one drawn together. How far the seeds
    differ is shown beside.
    """

    every: Sequence[Measured]
    reduce: Reduce | None = None

    @property
    def cases(self) -> np.ndarray:
        """The case of each row, (seeds x cases,)."""
        return np.tile(np.arange(len(self._of(0))), len(self.every))

    def _of(self, seed: int) -> np.ndarray:
        return next(iter(self.every[seed].columns.values()))

    def columns(self) -> Columns:
        return {name: np.concatenate([one.columns[name] for one in self.every]) for name in self.every[0].columns}

    def interval(self, reduce: Reduce | None = None, share: bool = False) -> Estimate | None:
        return interval(self.columns(), self.cases, reduce or self.reduce, share=share)

    def beside(self, base: Columns, share: bool = False) -> Compared | None:
        """The paired difference from a baseline that has no seed."""
        before = {name: np.tile(values, len(self.every)) for name, values in base.items()}
        return compare(before, self.columns(), self.cases, self.reduce, share=share)

    def against(self, other: "Seeds", share: bool = False) -> Compared | None:
        """The difference from another subject with the same seeds, self - other."""
        return compare(other.columns(), self.columns(), self.cases, self.reduce, share=share)

    def each(self) -> str:
        """What each seed reads."""
        read = self.reduce or (lambda columns: float(columns["value"].mean()))
        return ", ".join(f"{read(one.columns):.3f}" for one in self.every) if len(self.every) > 1 else ""

    def seconds(self) -> str:
        return f"{np.mean([one.seconds for one in self.every]):.0f}"


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


COLOURS = ("#2f6db5", "#a85a1c")
WIDTH, HEIGHT, EDGE = 720, 330, 50


def drawn(figure: Figure) -> str:
    """The curves as SVG: those of training dashed, those of validation whole, a colour a subject."""
    every = [point for curve in figure.curves.values() for point in curve]
    most_x, most_y = max(x for x, _ in every), math.ceil(max(y for _, y in every))

    def place(x: float, y: float) -> str:
        across, up = x / most_x * (WIDTH - 5 * EDGE), y / most_y * (HEIGHT - 2 * EDGE)
        return f"{EDGE + across:.1f} {HEIGHT - EDGE - up:.1f}"

    lines = [f'<path d="M{place(0, y)}H{WIDTH - 4 * EDGE}" stroke="#808080" opacity="0.3"/>' for y in range(most_y + 1)]
    lines += [_said(EDGE - 20, place(0, y).split()[1], str(y)) for y in range(most_y + 1)]
    lines += [_said(EDGE + (WIDTH - 5 * EDGE) // 2, HEIGHT - 12, f"step (of {most_x})"), _said(EDGE, 24, "bits a byte")]
    subjects = list(dict.fromkeys(name.partition(": ")[2] for name in figure.curves))
    for name, curve in figure.curves.items():
        kind, _, subject = name.partition(": ")
        colour = COLOURS[subjects.index(subject)]
        dashes = ' stroke-dasharray="5 5"' if kind == "training" else ""
        path = "L".join(place(x, y) for x, y in curve)
        lines.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"{dashes}/>')
        lines.append(_said(WIDTH - 4 * EDGE + 8, place(*curve[-1]).split()[1], f"{subject}, {kind}", colour))
    label = "; ".join(f"{name} ends at {curve[-1][1]:.2f} bits a byte" for name, curve in figure.curves.items())
    head = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" role="img" aria-label="{label}"'
    body = "\n  ".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {head}>\n  {body}\n</svg>\n'


def _said(x: float | str, y: float | str, text: str, colour: str = "#808080") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{text}</text>'


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
