"""Cost: how much a model writes in a second, how long one waits, and what it takes, on this machine now.

Limit: cost. Every case is one answer; before and after are timed by turns, so that a machine that slows down slows
both. What is counted is what the model itself wrote, so that a mend that lets out whole answers, or rewrites them, is
not taken for a slow one: tokens where a model tells their number, else characters. Of a model that does not write,
texts read. A speed-up is never claimed that was not timed here.
Misses: throughput of batches, energy.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qualm.cases import WHY, Case, Row, ask, plain
from qualm.errors import Unsupported
from qualm.lm.base import LM, Completion, Sampling
from qualm.probes.base import Columns, Probe, unread

QUESTION = "Tell me about the weather in spring."
PASSAGE = (
    "In spring the days grow longer and the ground slowly warms. Rain falls often, but seldom for long, and between the"
    " showers the sun already has some strength. Rivers run high with melted snow from the hills. A frost in April can"
    " still kill the blossom of a whole orchard in one night."
)
TOKENS, CHARACTERS, TEXTS = "tokens/s", "characters/s", "texts/s"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
RESET_PEAK = "5"
KIBIBYTE, MEBIBYTE = 2**10, 2**20
MILLISECONDS = 1e3


@dataclass(frozen=True)
class Cost(Probe):
    """What is written a second, batch 1, the wait for the first token included; or, of an encoder, texts read.

    `unit` says what is counted; `fitted` finds it for each model.
    """

    n: int = 16
    unit: str = TOKENS  # pyrefly: ignore[bad-override]  # the one probe whose unit hangs on the model

    limit = "cost"
    needs = frozenset()  # generate, embed or classify: `fitted` sees to it
    quick = 16
    margin = 0.1  # of the speed before
    live = True
    sampling = Sampling(max_tokens=32)

    def fitted(self, *subjects: LM) -> "Cost":
        """Counts what all these models tell. Each is asked once, so that none is timed while it warms up."""
        if all("generate" in lm.can for lm in subjects):
            answers = [lm.generate([ask(QUESTION)], self.sampling)[0] for lm in subjects]
            silent = any(answer.text and not answer.tokens for answer in answers)
            return replace(self, unit=CHARACTERS if silent else TOKENS)
        for lm in subjects:
            _reader(lm)(PASSAGE)
        return replace(self, unit=TEXTS)

    def cases(self) -> list[Case]:
        """Rounds, all alike but for their number."""
        if self.unit == TEXTS:
            return [Case(f"text/{i}", f"{PASSAGE} ({i})") for i in range(self.n)]
        return [Case(f"round/{i}", ask(f"{QUESTION} ({i})")) for i in range(self.n)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        time_it = self._time_reading if self.unit == TEXTS else self._time_writing
        found: list[Row] = []
        for case in cases:
            before = _reset_peak()
            row = time_it(lm, case)
            if before and "value" in row:
                row["working"] = float(max(0, _peak() - before))
            found.append(row)
        return found

    def margin_at(self, value: float) -> float:
        return self.margin * value

    def _time_reading(self, lm: LM, case: Case) -> dict[str, float | str]:
        read, text = _reader(lm), plain(case.prompt)
        started = time.perf_counter()
        read(text)
        seconds = time.perf_counter() - started
        return {"value": 1 / seconds, "seconds": seconds, **_size(lm)}

    def _time_writing(self, lm: LM, case: Case) -> dict[str, float | str]:
        started = time.perf_counter()
        answer = lm.generate([case.prompt], self.sampling)[0]
        seconds = time.perf_counter() - started
        written = answer.tokens if self.unit == TOKENS else len(answer.text)
        if not written:
            return {WHY: _nothing(answer)}
        begun = time.perf_counter()
        for _ in lm.stream(case.prompt, self.sampling):
            break
        first = time.perf_counter() - begun
        return {"value": written / seconds, "seconds": seconds / written, "first": first, **_size(lm)}

    def figures(self, columns: Columns) -> dict[str, float]:
        """Medians over the rounds."""
        one, times = self.unit.removesuffix("s/s"), MILLISECONDS * columns["seconds"]
        shown = {
            "ms to the first piece of text": MILLISECONDS * columns.get("first", np.array([np.nan])),
            f"ms a {one}": times,
            f"ms a {one}, slowest round": times.max(),
            "MiB of weights": columns["weights"] / MEBIBYTE,
        }
        if "working" in columns:
            shown["MiB of memory while answering, beside the weights"] = columns["working"].max() / MEBIBYTE
        if "disk" in columns:
            shown |= {"MiB on disk": columns["disk"] / MEBIBYTE, "s to load": columns["load"]}
        return {name: float(np.median(values)) for name, values in shown.items()}


def _reader(lm: LM) -> Callable[[str], object]:
    """What reads one text. Raises Unsupported for a model that neither writes nor reads."""
    if "embed" in lm.can:
        return lambda text: lm.embed([text])
    if "classify" in lm.can:
        return lambda text: lm.classify([text])
    raise Unsupported(f"needs generate, embed or classify, none of which {lm.name} gives")


def _nothing(answer: Completion) -> str:
    """Why an answer of no tokens cannot be timed."""
    if lost := unread(answer):
        return str(lost[WHY])
    if answer.text:
        return "it does not tell how many tokens it wrote"
    return "it wrote nothing: the first token of its answer is its end token"


def _size(lm: LM) -> dict[str, float]:
    loaded = {"disk": float(lm.loaded.bytes), "load": lm.loaded.seconds} if lm.loaded else {}
    return {"weights": float(lm.card.bytes), **loaded}


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
