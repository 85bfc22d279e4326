"""Do our models compute what transformers' compute, and the recurrent cells what torch.nn's do?

    python benchmarks/parity.py [FAMILY ...] [--real]

Each row is a tiny random model, each cell the largest absolute difference between the two implementations with the
same weights (see `tests/parity_checks.py`); "keys" and "greedy" count tensors and tokens that differ. A cell over
1e-4, or over 1e-6 in the table of recurrent cells, is marked !, and the exit code is 1. With --real, also published
checkpoints: some are fetched by name, others are in the folder that QUALM_SHARED names.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import transformers

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from parity_cases import VARIANTS
from parity_cells import ALLOWED as CELLS_ALLOWED
from parity_cells import STACKS, measured_cells
from parity_checks import ALLOWED, CHECKS, Pair, measured, pair_of, scale
from parity_real import REAL, SHARED, measured_real, pair_of_real

Measure = Callable[[Pair], Mapping[str, float | None]]
COUNTS = {"keys", "greedy"}
FAMILIES = {"rnn", *(variant.family for variant in VARIANTS)}


def main(words: list[str]) -> int:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    wanted = {word for word in words if not word.startswith("-")}
    if wanted - FAMILIES or set(words) - wanted - {"--real"}:
        print(__doc__)
        return 2
    wanted = wanted or FAMILIES
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32")
    marked = False
    for family in sorted({v.family for v in VARIANTS} & wanted):
        rows = (row(family, v.name, lambda at, v=v: pair_of(v, at)) for v in VARIANTS if v.family == family)
        marked |= table(rows, [family, "logits' std", *CHECKS])
    if "rnn" in wanted:
        found = [{"rnn": str(stack), **measured_cells(stack)} for stack in STACKS]
        marked |= table(({k: cell(k, v, CELLS_ALLOWED) for k, v in row.items()} for row in found), [*found[0]])
    if "--real" in words:
        there = [r for r in REAL if r.by_name or SHARED in os.environ]
        rows = (row("published", r.name, lambda at, r=r: pair_of_real(r, at), measured_real) for r in there)
        marked |= table(rows, ["published", "logits' std", *CHECKS])
    return int(marked)


def row(head: str, name: str, build: Callable[[Path], Pair], measure: Measure = measured) -> dict[str, str]:
    """All cells of a pair that is built in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        pair = build(Path(folder))
        std = scale(pair)
        found = {check: cell(check, value) for check, value in measure(pair).items()}
    return {head: name, "logits' std": f"{std:.1f}", **found}


def cell(name: str, value: float | str | None, allowed: float = ALLOWED) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return (f"{value:.0f}" if name in COUNTS or value == 0 else f"{value:.0e}") + ("" if value <= allowed else " !")


def table(rows: Iterable[Mapping[str, str]], names: list[str]) -> bool:
    """Print rows as they come; returns whether one holds a cell that is marked."""
    print(flush=True)
    marked = False
    widths = [28, *(max(6, len(name)) for name in names[1:])]
    for head in (dict(zip(names, names, strict=True)), dict(zip(names, ["-" * w for w in widths], strict=True))):
        line(head, names, widths)
    for row in rows:
        line(row, names, widths)
        marked |= any(value.endswith("!") for value in row.values())
    return marked


def line(row: Mapping[str, str], names: list[str], widths: list[int]) -> None:
    print("| " + " | ".join(row[name].ljust(w) for name, w in zip(names, widths, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
