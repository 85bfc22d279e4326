"""Audits and proofs as tables for a terminal, in the words of the report."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qualm.auditing.report import telling
from qualm.auditing.report.build import build
from qualm.auditing.report.content import Report, report_of
from qualm.auditing.report.words import Words
from qualm.auditing.types import Audit, Proof
from qualm.page.figures import figure, places

Json = dict[str, Any]
STYLES = {"better": "green", "worse": "red", "cannot tell": "default", "not measured": "dim"}
ENGLISH = Words("en")


def page_of(thing: Report | Audit | Proof) -> Json:
    return build(report_of(thing))


def audit_table(audit: Audit) -> RenderableType:
    """A line a probe: the reading, its interval, chance, and what it rests on; or why there is none."""
    page = page_of(audit)
    table = _table("limit", "reading", "95 % interval", "by chance", "rests on, or why not")
    for limit in page["subjects"][0]["limits"]:
        if limit["reading"] is None:
            table.add_row(limit["title"], "-", "", "", Text(limit["why"], style="dim"))
            continue
        unit = telling.unit_name(limit["unit"], ENGLISH)
        value = f"{telling.value(limit['reading'], limit['unit'])} {unit}".strip()
        interval = telling.interval(limit["reading"], limit["unit"], ENGLISH)
        rests = telling.rests_on(limit["reading"], ENGLISH) + telling.unread(limit, ENGLISH)
        table.add_row(limit["title"], value, interval, _chance(limit), rests)
    notes = [Text(note, style="dim") for note in page["notes"]]
    return Group(Text(page["subjects"][0]["name"], style="bold"), table, *notes)


def proof_table(proof: Proof) -> RenderableType:
    """A line a probe: before and after, the difference with its interval, the verdict and what qualifies it."""
    page = page_of(proof)
    shown = page["subjects"][0]["proofs"][0]
    table = _table("limit", "before → after", "difference", "95 % interval", "verdict", "")
    for change in shown["changes"]:
        verdict = Text(change["verdict"], style=STYLES[change["verdict"]])
        beside = Text(telling.beside(change, ENGLISH), style="dim")
        if change["verdict"] == "not measured":
            table.add_row(change["title"], "", "", "", verdict, beside)
            continue
        moved = telling.moved_columns(change, ENGLISH)
        table.add_row(change["title"], telling.both(change, ENGLISH), *moved, verdict, beside)
    return Group(Text(page["title"], style="bold"), table, Text(page["sentence"]))


def _chance(limit: Json) -> str:
    chance, unit = limit["chance"], limit["unit"]
    return "" if chance is None else figure(chance, unit, places(unit, chance, chance))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column is not columns[-1], overflow="fold")
    return table
