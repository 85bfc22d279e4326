"""Cost: seconds to the first token, tokens a second, memory and bytes, on this machine now.

Limit: cost. Every case is one streamed answer; before and after are timed by turns, so that a machine that slows down
slows both. A speed-up is never claimed that was not timed here.
Misses: throughput of batches, energy.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qualm.cases import Case, Row, ask
from qualm.lm.base import LM, Sampling
from qualm.probes.base import Columns, Probe

QUESTION = "Tell me about the weather in spring."
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
RESET_PEAK = "5"
KIBIBYTE, MEBIBYTE = 2**10, 2**20


@dataclass(frozen=True)
class Cost(Probe):
    """Pieces of text streamed a second, batch 1: about tokens a second, the wait for the first one included."""

    n: int = 16

    limit = "cost"
    unit = "tokens/s"
    quick = 16
    live = True
    sampling = Sampling(max_tokens=32)

    def cases(self) -> list[Case]:
        """Rounds: all are "test", there is nothing to learn from a stopwatch."""
        return [Case(f"round/{i}", ask(f"{QUESTION} ({i})")) for i in range(self.n)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        return [self._time(lm, case) for case in cases]

    def _time(self, lm: LM, case: Case) -> Row:
        before = _reset_peak()
        started = last = time.perf_counter()
        gaps = []
        for _ in lm.stream(case.prompt, self.sampling):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
        seconds = time.perf_counter() - started
        row = {"value": len(gaps) / seconds, "seconds": seconds, "weights": float(lm.card.bytes)}
        if gaps:
            row |= {"first": gaps[0], "gap": float(np.median(gaps[1:] or gaps)), "slow": float(np.quantile(gaps, 0.95))}
        if before:
            row["working"] = float(max(0, _peak() - before))
        return row if gaps else {}

    def figures(self, columns: Columns) -> dict[str, float]:
        """Medians over the rounds."""
        shown = {
            "ms to the first token": 1e3 * float(np.median(columns["first"])),
            "ms a token, p50": 1e3 * float(np.median(columns["gap"])),
            "ms a token, p95": 1e3 * float(np.median(columns["slow"])),
            "MiB of weights": float(np.median(columns["weights"])) / MEBIBYTE,
        }
        if "working" in columns:
            shown["MiB of memory while answering, beside the weights"] = float(columns["working"].max()) / MEBIBYTE
        return shown


def _reset_peak() -> int:
    """Forget the peak of this process's memory so far; its resident size now in bytes, 0 where that cannot be read."""
    if not CLEAR.exists():
        return 0
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return 0
    return _peak()


def _peak() -> int:
    """The largest resident size since the last reset, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * KIBIBYTE
