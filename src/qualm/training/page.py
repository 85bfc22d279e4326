"""training.html: how a run goes, on one page that loads nothing, in English and Chinese, in light and in dark."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qualm import __version__
from qualm.errors import QualmError
from qualm.files import write_text
from qualm.page.figures import duration, many, plain
from qualm.page.markup import Child, Html, both, h
from qualm.page.sheet import LANGUAGES, SWITCH, THEME, Sheet, document
from qualm.training.curves import Curve, plot
from qualm.training.metrics import LOG, ROWS, read_rows
from qualm.training.recipe import ERRORS

NAME = "training.html"
OWN = str(__package__)
MOST_TOLD = 60  # events, from the last one back

Row = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What the page says besides the curves: `facts` are headings (English, Chinese) with names and values."""

    name: str
    unit: str  # of what validation reads
    facts: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


class Page:
    """The page of one run: `run` is the folder with its rows, `path` where the page goes."""

    def __init__(self, run: Path, path: Path, about: About):
        self.run, self.path, self.about, self.moved = run, path, about, False

    def watching(self, on_step: Callable[[Row], None]) -> Callable[[Row], None]:
        """What takes the rows of a run, and writes the page at each validation."""

        def step(row: Row) -> None:
            self.moved = True
            on_step(row)
            if "validation" in row:
                self.write()

        return step

    def write(self, fault: str = "") -> None:
        rows, told = read_rows(self.run / ROWS), read_rows(self.run / LOG)
        sheet = Sheet(self.about.name, f"qualm {__version__}", (THEME, LANGUAGES, (OWN, "training.css")), (SWITCH,))
        write_text(self.path, document(sheet, _body(self.about, rows, told, fault)))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The page tells how it ended, also if it ended badly."""
        try:
            yield
        except Exception as error:
            with suppress(QualmError):  # what went wrong first is told
                self.write(str(error))
            raise
        if self.moved:
            self.write()


def _body(about: About, rows: Sequence[Row], told: Sequence[Row], fault: str) -> list[Html]:
    switches = [
        h("button", {"type": "button", "class": "language", "hidden": True}, both("中文", "English")),
        h("button", {"type": "button", "class": "theme", "hidden": True, "aria-label": "Light or dark"}, h("span")),
    ]
    parts: list[Child] = [_section("curves", ("Curves", "曲线"), *_figures(about, rows))] if rows else []
    parts.append(_section("events", ("What happened", "经过"), _events(told)))
    for i, (heading, facts) in enumerate(about.facts.items()):
        parts.append(_section(f"facts-{i}", heading, _facts(facts)))
    return [
        h("nav", {}, h("a", {"class": "brand", "href": "#main"}, "Qualm"), h("ul"), switches),
        h("main", {"id": "main"}, _head(about, rows, fault), parts),
        h("footer", {}, h("p", {}, f"Qualm {__version__} · qualm.training/1")),
    ]


def _section(name: str, title: tuple[str, str], *children: Child) -> Html:
    heading = h("h2", {"id": f"{name}-title"}, both(*title))
    return h("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, children)


def _head(about: About, rows: Sequence[Row], fault: str) -> Html:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stopped = h("p", {"class": "fault", "role": "alert"}, fault) if fault else None
    last = rows[-1] if rows else {}
    return h(
        "header",
        {"class": "top"},
        h("p", {"class": "over"}, h("time", {"datetime": now}, now.replace("T", " ").replace("+00:00", " UTC"))),
        h("h1", {}, about.name),
        h("p", {"class": "sentence"}, both(*_sentence(about, rows))),
        stopped,
        _glance(last) if last else None,
    )


def _sentence(about: About, rows: Sequence[Row]) -> tuple[str, str]:
    """How far it is, and the best reading."""
    if not rows:
        return "No step is done yet.", "尚未完成任何一步。"
    last, read = rows[-1], [row for row in rows if row.get("validation") is not None]
    step, steps = last["step"], last["steps"]
    if not read:
        loss = plain(last["loss"])
        return f"Step {step:,} of {steps:,}: loss {loss} nats.", f"第 {step:,} 步，共 {steps:,} 步：损失 {loss} 奈特。"
    best = min(read, key=lambda row: row["validation"])
    value, at = f"{best['validation']:.3f}", f"{best['step']:,}"
    return (
        f"Step {step:,} of {steps:,}; at best {value} {about.unit}, at step {at}.",
        f"第 {step:,} 步，共 {steps:,} 步；最好为 {value} {UNITS.get(about.unit, about.unit)}，在第 {at} 步。",
    )


UNITS = {"bits per byte": "比特/字节", "nats a token": "奈特/词元", "nats a target": "奈特/目标", ERRORS: "错误/目标"}


def _glance(last: Row) -> Html:
    """The last row in figures."""
    left = last["seconds"] / last["step"] * (last["steps"] - last["step"])
    shown: list[tuple[tuple[str, str], str]] = [
        (("tokens learnt from", "已学词元"), many(last["tokens"])),
        (("tokens a second", "词元/秒"), f"{last['tokens'] / max(last['seconds'], 1e-9):,.0f}"),
        (("time taken", "用时"), duration(last["seconds"])),
    ]
    if "peak_share" in last:
        shown.append((("of the machine's peak", "占本机峰值"), f"{100 * last['peak_share']:.0f}%"))
    if last["step"] < last["steps"]:
        shown.append((("time left", "剩余时间"), duration(left)))
    return h("dl", {"class": "facts glance"}, [h("div", {}, h("dt", {}, both(*n)), h("dd", {}, v)) for n, v in shown])


def _figures(about: About, rows: Sequence[Row]) -> list[Html]:
    key = "bits_per_byte" if about.unit == "bits per byte" and any("bits_per_byte" in r for r in rows) else "loss"
    held = Curve(("held out", "留出"), _points(rows, "validation"), kind="held", spots=True)
    errors = about.unit == ERRORS  # not to be drawn on the scale of a loss
    wide = [Curve(("learnt", "训练"), _points(rows, key), band=True), *([] if errors else [held])]
    unit = about.unit if key == "bits_per_byte" else "nats"
    zh = UNITS.get(unit, "奈特")
    skipped = [row["step"] for row in rows if row["loss"] is None]
    small = [
        *([((f"Held out, {ERRORS}", f"留出，{UNITS[ERRORS]}"), [held], False)] if errors else []),
        (("Learning rate", "学习率"), [Curve(("rate", "学习率"), _points(rows, "lr"))], False),
        (("Norm of the gradient", "梯度范数"), [Curve(("norm", "范数"), _points(rows, "norm"), band=True)], False),
        (
            ("Tokens a second", "词元/秒"),
            [Curve(("speed", "速度"), _points(rows, "tokens_per_second"), band=True)],
            True,
        ),
    ]
    name = (f"Loss, {unit}", f"损失，{zh}")
    large, narrow = (plot(name, wide, from_zero=False, marks=skipped, wide=size) for size in (True, False))
    return [
        h("div", {"class": "wide"}, large),
        h("div", {"class": "narrow"}, narrow),
        h("div", {"class": "figures"}, [plot(title, curves, from_zero=zero) for title, curves, zero in small]),
    ]


def _points(rows: Sequence[Row], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _events(told: Sequence[Row]) -> Html:
    if not told:
        return h("p", {"class": "none"}, both("Nothing out of the ordinary.", "没有异常。"))
    shown = [
        h("tr", {}, h("td", {}, row["when"].replace("T", " ").removesuffix("+00:00")), h("td", {}, row["event"]))
        for row in told[: -MOST_TOLD - 1 : -1]
    ]
    heads = h(
        "tr",
        {},
        h("th", {"scope": "col"}, both("When (UTC)", "时间 (UTC)")),
        h("th", {"scope": "col"}, both("What", "事件")),
    )
    caption = h("caption", {}, both("What happened, last first", "经过，最近的在前"))
    table = h("table", {"class": "small"}, caption, h("thead", {}, heads), h("tbody", {}, shown))
    return h("div", {"class": "scroll small-box", "tabindex": 0, "role": "region", "aria-label": "events"}, table)


def _told(value: Any) -> list[Html] | str:
    if isinstance(value, bool):
        return both(*(("yes", "是") if value else ("no", "否")))
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _facts(facts: Mapping[str, Any]) -> Html:
    shown = [
        h("div", {}, h("dt", {}, name.replace("_", " ")), h("dd", {}, _told(value)))
        for name, value in facts.items()
        if value not in (None, "", (), [], {})
    ]
    return h("dl", {"class": "facts"}, shown)
