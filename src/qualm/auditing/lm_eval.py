"""Audits from the files that EleutherAI's lm-evaluation-harness writes with --log_samples.

Every line of samples_TASK_TIME.jsonl is a document with what was asked, what came back, and a number a metric. Each
task and metric becomes a measurement named "task/metric". Metrics of which a pair (log-likelihood, count) was logged
are recomputed from the pairs; others of which no number a document was logged are not measurable here.
Source: lm_eval/evaluator.py and lm_eval/api/metrics.py of lm-evaluation-harness 0.4.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

from qualm.auditing.readings import measurement
from qualm.auditing.types import Audit, Measurement
from qualm.cases import Case, Row
from qualm.config import build
from qualm.errors import InputError, Unsupported
from qualm.files import hash_file, hash_json, read_json
from qualm.lm.base import Card
from qualm.probes.base import Columns, Probe

NAME = re.compile(r"samples_(?P<task>.+?)(_(?P<time>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*))?\.jsonl")
LOW = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "wer", "cer"}
)
RATIOS = frozenset({"word_perplexity", "byte_perplexity", "bits_per_byte"})  # logged as (log-likelihood, count)
SHARES = ("acc", "exact_match", "em", "f1", "pass@", "contains", "mc1", "mc2")  # how the names of shares begin
OUR_KEYS = frozenset({"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter"})

AGAIN = "write it again with lm_eval --log_samples"

Json = dict[str, Any]


@dataclass(frozen=True)
class Logged(Probe):
    """A metric of a task as lm-eval logged it: it can be read and compared, not put to a model."""

    kind: str = "high"
    task: str = ""
    metric: str = ""

    limit: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset()
    unit: ClassVar[str] = ""

    def cases(self) -> Sequence[Case]:
        raise Unsupported(f"{self.task} was read from a file of lm-eval, and cannot be put here")


@dataclass(frozen=True)
class LoggedShare(Logged):
    """A share; higher is better."""

    unit: ClassVar[str] = "share"


@dataclass(frozen=True)
class LoggedLow(Logged):
    """A number of which lower is better."""

    better = "low"


@dataclass(frozen=True)
class LoggedPerplexity(LoggedLow):
    """exp of the mean negative log-likelihood of a document."""

    def reduce(self, columns: Columns) -> float:
        return math.exp(-float(columns["value"].mean()))


@dataclass(frozen=True)
class LoggedRatio(LoggedLow):
    """Perplexity a word or a byte, or bits a byte: from the sums of log-likelihoods and of counts."""

    def reduce(self, columns: Columns) -> float:
        nats = -float(columns["loglikelihood"].sum() / columns["count"].sum())
        return nats / math.log(2) if self.metric == "bits_per_byte" else math.exp(nats)


KINDS: Mapping[str, type[Logged]] = {
    "high": Logged,
    "share": LoggedShare,
    "low": LoggedLow,
    "perplexity": LoggedPerplexity,
    "ratio": LoggedRatio,
}


def rebuild(settings: Mapping[str, Any]) -> Logged:
    """The probe with these settings."""
    return build(KINDS[settings["kind"]], settings)


def samples(folder: Path) -> list[Path]:
    """The samples files of a folder, of each task the newest."""
    found = {match["task"]: path for path in sorted(folder.iterdir()) if (match := NAME.fullmatch(path.name))}
    return list(found.values())


def read(path: Path) -> Audit:
    """One samples file, or all of a folder. Raises InputError naming the file and line that cannot be used."""
    files = samples(path) if path.is_dir() else [path]
    made: list[Measurement] = []
    results: Json = {}
    for file in files:
        match = NAME.fullmatch(file.name)
        task = match["task"] if match else file.stem
        results = _results(file, match["time"] if match else None)
        made += _measurements(task, _documents(file), results.get("higher_is_better", {}).get(task, {}))
    subject = str(results.get("model_name") or path.resolve().stem)
    answers = hash_json([hash_file(file) for file in files])  # what the model is cannot be known from its answers
    return Audit(
        subject, Card("lm-eval", weights=answers), tuple(made), {"lm_eval": results.get("lm_eval_version", "")}
    )


def _results(file: Path, time: str | None) -> Json:
    """What the results_TIME.json beside a samples file says, {} if there is none."""
    beside = file.with_name(f"results_{time}.json")
    found = read_json(beside) if time and beside.exists() else {}
    return found if isinstance(found, dict) else {}


def read_lines(file: Path) -> list[str]:
    """Lines of a text file. Raises InputError if it is not there or is no text."""
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # U+2028 in a text ends no line
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is no UTF-8 text ({error.reason})", where=str(file)) from error


def _documents(file: Path) -> list[Json]:
    found: list[Json] = []
    for number, line in enumerate(read_lines(file), 1):
        try:
            each = json.loads(line)
        except ValueError as error:
            raise InputError(f"a damaged line ({error})", where=f"{file}:{number}", then=AGAIN) from error
        if not isinstance(each, dict) or "doc_id" not in each:
            raise InputError("no document of lm-eval (it has no doc_id)", where=f"{file}:{number}", then=AGAIN)
        found.append(each)
    return found


def _measurements(task: str, lines: Sequence[Json], higher: Mapping[str, bool]) -> Iterator[Measurement]:
    """One a metric, and a filter of the answers if there are several."""
    by_filter: defaultdict[str, list[Json]] = defaultdict(list)
    for line in lines:
        by_filter[str(line.get("filter", ""))].append(line)
    for each, kept in by_filter.items():
        tail = f",{each}" if len(by_filter) > 1 else ""
        for metric in _metrics(kept):
            yield _measurement(f"{task}/{metric}{tail}", Logged(task=task, metric=metric), kept, higher.get(metric))


def _metrics(lines: Iterable[Json]) -> list[str]:
    """The metrics in a file; old files do not list them, and have them as further numbers."""
    named = {
        metric: None
        for line in lines
        for metric in line.get("metrics", [k for k in line if k not in OUR_KEYS and not k.endswith("_hash")])
    }
    return list(named)


def _measurement(name: str, bare: Logged, lines: Sequence[Json], higher: bool | None) -> Measurement:
    values = [line.get(bare.metric) for line in lines]
    kind = _kind(bare.metric, values, higher)
    if kind is None:
        why = "lm-eval logged no number a document for this metric, only what it is computed from"
        return Measurement(name, bare, None, why)
    probe = rebuild({"n": len(lines), "kind": kind, "task": bare.task, "metric": bare.metric})
    cases = [_case(line) for line in lines]
    if len({case.id for case in cases}) < len(cases):
        raise InputError(f"{name}: a document stands there twice", then=AGAIN)
    return measurement(probe, cases, [_row(kind, v, line) for v, line in zip(values, lines, strict=True)], name)


def _kind(metric: str, values: Sequence[Any], higher: bool | None) -> str | None:
    """The key of KINDS, None if there is no number a document."""
    if metric in RATIOS and all(isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)) for v in values):
        return "ratio"
    if not all(map(_is_number, values)):
        return None
    if metric == "perplexity":
        return "perplexity"
    if metric in LOW or higher is False:
        return "low"
    return "share" if metric.startswith(SHARES) and all(0 <= v <= 1 for v in values) else "high"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _case(line: Json) -> Case:
    """The document itself is what was asked: its wording may differ by model (a template, other examples before it)."""
    document = line.get("doc", line.get("doc_hash", ""))
    asked = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, sort_keys=True)
    choices, target = _choices(line), line.get("target", "")
    at = isinstance(target, int) and 0 <= target < len(choices)
    return Case(str(line["doc_id"]), asked, choices[target] if at else str(target), choices)


def _row(kind: str, value: Any, line: Json) -> Row:
    answer = _answer(line)
    said = {} if answer is None else {"answer": answer}
    if kind == "ratio":
        return {"value": -value[0] / value[1], "loglikelihood": float(value[0]), "count": float(value[1]), **said}
    return {"value": float(value), **said}


def _choices(line: Json) -> tuple[str, ...]:
    """The continuations that were scored; () if the model wrote its answer."""
    given = line.get("arguments", [])
    calls = [list(call.values()) if isinstance(call, dict) else call for call in _items(given)]
    scored = [call[1] for call in calls if isinstance(call, list) and len(call) > 1 and isinstance(call[1], str)]
    return tuple(scored) if len(scored) == len(calls) > 1 else ()


def _items(given: Any) -> list[Any]:
    return list(given.values()) if isinstance(given, dict) else list(given)


def _answer(line: Json) -> str | None:
    """What the model wrote, or the likeliest of the choices."""
    said, choices = line.get("filtered_resps", []), _choices(line)
    if len(said) == 1 and isinstance(said[0], str):
        return said[0]
    if choices and len(said) == len(choices) and all(isinstance(each, list) and _is_number(each[0]) for each in said):
        return choices[max(range(len(said)), key=lambda i: said[i][0])]
    return None
