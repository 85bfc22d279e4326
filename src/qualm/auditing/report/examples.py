"""Cases that a mend fixed and cases that it broke, for the reader to look at."""

from collections.abc import Iterable
from math import isfinite
from numbers import Real
from typing import Any

from qualm.auditing.types import Measurement
from qualm.cases import Case, Prompt, Row

MOST, FEWEST = 3, 1  # examples of a kind: where something moved or should have, and elsewhere
CLIP = 400  # characters of a prompt or an answer

Json = dict[str, Any]
Moved = tuple[Case, Row, Row]


def turns(prompt: Prompt, most: int = CLIP) -> list[Json]:
    """A prompt as [{"role", "content"}], clipped; text to continue has the role "text"."""
    if isinstance(prompt, str):
        return [{"role": "text", "content": clip(prompt, most)}]
    return [{"role": m["role"], "content": clip(m["content"], most)} for m in prompt]


def clip(text: str, most: int = CLIP) -> str:
    return text if len(text) <= most else f"{text[:most]} […]"


def examples(before: Measurement, after: Measurement, most: int = MOST) -> Json:
    """Up to `most` cases of each kind, the largest moves first, from as many groups as there are; no live ones."""
    if before.probe.live:
        return {"fixed": [], "broken": []}
    rows = {case.id: row for case, row in zip(after.cases, after.rows, strict=True)}
    sign = 1 if before.probe.better == "high" else -1
    moved: list[tuple[float, Moved]] = []
    for case, row in zip(before.cases, before.rows, strict=True):
        old, new = _value(row), _value(rows.get(case.id, {}))
        if old is not None and new is not None and new != old:
            moved.append((sign * (new - old), (case, row, rows[case.id])))
    gained = sorted((m for m in moved if m[0] > 0), key=lambda m: -m[0])
    lost = sorted((m for m in moved if m[0] < 0), key=lambda m: m[0])
    return {
        "fixed": [_example(m) for m in _spread((m for _, m in gained), most)],
        "broken": [_example(m) for m in _spread((m for _, m in lost), most)],
    }


def _value(row: Row) -> float | None:
    value = row.get("value")
    return float(value) if isinstance(value, Real) and isfinite(value) else None


def _spread(moved: Iterable[Moved], most: int) -> list[Moved]:
    """The first of each group before the second of any."""
    seen: set[str] = set()
    first: list[Moved] = []
    rest: list[Moved] = []
    for item in moved:
        (rest if item[0].cluster in seen else first).append(item)
        seen.add(item[0].cluster)
        if len(first) == most:
            break
    return [*first, *rest][:most]


def _example(moved: Moved) -> Json:
    case, old, new = moved
    return {
        "id": case.id,
        "part": case.part,
        "prompt": turns(case.prompt),
        "target": clip(case.target),
        "before": _side(old),
        "after": _side(new),
    }


def _side(row: Row) -> Json:
    answer = row.get("answer")
    return {"value": _value(row), "answer": clip(answer) if isinstance(answer, str) else None}
