"""The report: one dictionary, shown alike by the page and the Markdown, whatever a model wrote."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from made_up import PROBES, audit, full_report, half_done, hostile, proof
from qualm.auditing.record import save
from qualm.auditing.report import Report, Subject, write_report
from qualm.auditing.report.build import build, plain_json
from qualm.auditing.report.html import html
from qualm.auditing.report.markdown import markdown
from qualm.auditing.types import Audit, Measurement, Proof, Reading
from qualm.page.figures import plain
from qualm.page.sheet import THEME, read

REPORT = Path(str(resources.files("qualm.auditing.report")))
PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
    "<a href=\"javascript:alert(1)\">go</a>",
    "[go](javascript:alert(1))",
    "<!-- <iframe srcdoc='<script>alert(1)</script>'>",
    "]]><math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "```\n</pre><script>alert(1)</script>\n````",
    "| a | b |\n# not a heading",
    "\ud800 lone, \x00 nul, \x1b[31m escape, \u202e turned",
    "{limits} {0} %s &lt;b&gt;",
)  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: elements with attributes, the text of each kind, and whether the tags balance."""

    VOID = frozenset({"meta", "br", "hr", "col", "wbr"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        shown = (t for tag, texts in self.texts.items() if tag not in ("style", "script") for t in texts)
        return " ".join(shown)


@pytest.fixture(scope="module")
def whole() -> dict:
    return build(full_report())


@pytest.fixture(scope="module")
def page(whole: dict) -> Page:
    return Page(html(whole))


def numbers(value: object) -> set[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        return set().union(*map(numbers, value.values() if isinstance(value, dict) else value))
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def is_inert(page: Page) -> None:
    """Only our own script and style, no handler, and no address but within the page."""
    assert page.texts["script"] == [(REPORT / "page.js").read_text()]
    assert page.texts["style"] == [read(THEME) + (REPORT / "page.css").read_text()]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "link", "base", "form", "math", "video", "audio"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "src", "srcset", "srcdoc", "action", "formaction", "xlink:href"), (tag, name)
            assert name != "href" or str(value).startswith("#"), (tag, value)


def test_the_page_is_well_formed_and_loads_nothing(page: Page) -> None:
    is_inert(page)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a[key]).lstrip("#") for _, a in page.elements for key in ("href", "aria-controls") if key in a}
    targets |= {str(a["aria-labelledby"]) for _, a in page.elements if "aria-labelledby" in a}
    assert targets <= set(ids)


def test_the_policy_allows_our_style_and_script_alone(page: Page) -> None:
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        digest = b64encode(sha256(page.texts[kind][0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    css = page.texts["style"][0]
    assert "url(" not in css
    assert "@import" not in css


def test_every_chart_has_words_and_every_table_a_caption_and_heads(page: Page) -> None:
    charts = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(charts) > 100
    assert all(a["aria-label"] for a in charts)
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("scope") for a in page.all("th"))


def test_figures_of_the_page_are_those_of_the_json(whole: dict, page: Page) -> None:
    shown = {float(str(a["value"])) for a in page.all("data")}
    assert shown <= numbers(whole)
    for subject in whole["subjects"]:
        for limit in subject["limits"]:
            if limit["reading"]:
                assert limit["reading"]["value"] in shown
        for proof_ in subject["proofs"]:
            for moved in proof_["changes"]:
                if moved["verdict"] != "not measured":
                    assert {moved["difference"], moved["before"]["value"], moved["after"]["value"]} <= shown


def test_the_markdown_says_what_the_page_says(whole: dict) -> None:
    text, shown = markdown(whole), html(whole)
    assert whole["sentence"] in text
    reading = (
        r'<td class="reading"><span class="value"><data value="[^"]+">([^<]+)</data>.*?<span class="range"[^>]*>([^<]+)'
    )
    limits = re.findall(r"^\| \*\*[^|]+ \| \*\*([^|]+?)\*\*[^|]*\| ([^|]+) \|", text, flags=re.M)
    assert [pair for pair in limits if pair[0] != "not measured"] == re.findall(reading, shown)
    moved = re.findall(r'<td class="moved"><data value="[^"]+">([^<]+)</data><small>([^<]+)', shown)
    told = re.findall(r"→ [^|]+\| ([^|]+) \| ([^|]+) \| [✔✘○]", text)
    assert len(told) == 8 * 13 - 8
    assert sorted(told) == sorted(moved)


def test_verdict_counts_add_up(whole: dict) -> None:
    changes = sum(len(proof_["changes"]) for subject in whole["subjects"] for proof_ in subject["proofs"])
    count = whole["summary"]
    assert sum(count[word] for word in ("better", "worse", "cannot tell", "not measured")) == changes == 8 * 13
    assert count["mends"] == 6
    assert count["not measured"] == 8


def test_what_a_mend_claims_is_outlined_and_verdicts_have_words(whole: dict, page: Page) -> None:
    claimed = [a for a in page.all("td") if "claimed" in str(a.get("class")).split()]
    wanted = [c for s in whole["subjects"] for p in s["proofs"] for c in p["changes"] if c["claimed"]]
    assert len(claimed) == len(wanted) > 8
    unseen = " ".join(page.texts["span"])
    assert "better, what the mend is for" in unseen
    cells = [a for a in page.all("td") if str(a.get("class")).startswith("cell ")]
    assert len(cells) == 8 * 13


@pytest.mark.parametrize("harmless", [True, False])
def test_harmless_has_a_shape_of_its_own(harmless: bool) -> None:
    made = proof("quantize", audit())
    made = replace(made, changes=tuple(replace(c, harmless=harmless) for c in made.changes))
    matrix, _, _ = html(build(report_with(made.before, made, made))).partition('<p class="legend"><span class="badge')
    assert ('href="#glyph-cannot-tell-harmless"' in matrix) is harmless
    assert ('href="#glyph-worse-harmless"' in matrix) is harmless


def report_with(before: Audit, *proofs: Proof) -> Report:
    return Report(
        "made up", (Subject(before.subject, before.card, before, (), proofs),), when="2026-01-02T03:04:05+00:00"
    )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_text(payload: str, tmp_path: Path) -> None:
    path = write_report(hostile(payload), tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    is_inert(page)
    clean = plain_json(payload)
    assert any(clean in text for text in page.texts["blockquote"])
    again = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert again["subjects"][0]["answers"][0]["answer"] == clean
    prose = re.sub(
        r"^(`{3,})text\n.*?\n\1$", "", (tmp_path / "report.md").read_text(encoding="utf-8"), flags=re.M | re.S
    )
    prose = re.sub(r"(`+) .*? \1", "", prose)
    assert not re.search(r"(?<!\\)<[a-z/!]", prose)
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert len([line for line in prose.splitlines() if line.startswith("# ")]) == 1


def test_a_report_written_twice_is_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(full_report(), tmp_path / name)
    first = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert first == second
    assert {"report.html", "report.md", "report.json"} <= {str(name) for name in first}


def test_rows_are_kept_beside_the_page(tmp_path: Path) -> None:
    before = audit()
    write_report(proof("retrieval", before), tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["files"]
    assert [f["path"] for f in told] == ["rows/planted/rows.jsonl", "rows/planted-retrieval/rows.jsonl"]
    for file in told:
        text = (tmp_path / file["path"]).read_bytes()
        assert sha256(text).hexdigest() == file["sha256"]
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == file["lines"] == sum(len(m.rows) for m in before.measurements)
    values = [row["row"]["value"] for row in rows if row["probe"] == "knowledge"]
    moved = json.loads((tmp_path / "report.json").read_text())["subjects"][0]["proofs"][0]["changes"][1]
    assert np.mean(values) == pytest.approx(moved["after"]["value"])


def test_records_in_the_folder_are_the_rows_of_the_report(tmp_path: Path) -> None:
    made = proof("temper", audit())
    save(made, tmp_path)
    write_report(made, tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["files"]
    assert [f["path"] for f in told] == ["after/rows.jsonl", "before/rows.jsonl"]
    assert not (tmp_path / "rows").exists()
    save(made.before, tmp_path / "run" / "planted" / "audit")
    save(made, tmp_path / "run" / "planted" / "temper")
    write_report(report_with(made.before, made), tmp_path / "run")
    told = json.loads((tmp_path / "run" / "report.json").read_text())["files"]
    assert [f["path"] for f in told] == [f"planted/{x}/rows.jsonl" for x in ("audit", "temper/after", "temper/before")]


def test_a_half_done_run_says_what_is_still_to_come(tmp_path: Path) -> None:
    path = write_report(half_done(), tmp_path)
    page = Page(path.read_text())
    is_inert(page)
    assert "This run goes on." in page.text
    assert page.text.count("still to come") >= 3
    assert "Its limits are still to be measured." in page.text
    assert "No mend is proved on it yet." in page.text
    assert "13 limits measured." in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "This run goes on." in (tmp_path / "report.md").read_text()
    done = write_report(replace(half_done(), unfinished=False), tmp_path / "done").read_text()
    assert "This run goes on." not in done


def test_an_empty_report_renders(tmp_path: Path) -> None:
    page = Page(write_report(Report("nothing", unfinished=True), tmp_path).read_text())
    assert "Nothing is measured yet." in page.text


@pytest.mark.parametrize("make", [lambda: audit(), lambda: proof("temper", audit())], ids=["audit", "proof"])
def test_one_audit_or_one_proof_is_a_report(make, tmp_path: Path) -> None:
    page = Page(write_report(make(), tmp_path).read_text())
    is_inert(page)
    assert "Knowledge" in page.text


def test_a_comparison_without_a_mend_is_a_report(tmp_path: Path) -> None:
    compared = replace(proof("temper", audit()), mend=None)
    page = Page(write_report(compared, tmp_path).read_text())
    assert "A change proved on 13 limits" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert not [a for a in page.all("td") if "claimed" in str(a.get("class")).split()]


def test_what_was_not_measured_is_shown_with_its_reason_and_never_as_zero(tmp_path: Path) -> None:
    why = "the clock of this machine is too coarse"
    write_report(audit(missing={"cost": why}), tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert sum(why in text for text in page.texts["td"]) == 2
    text = (tmp_path / "report.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| **Cost**"))
    assert "**not measured**" in row
    assert why in row
    assert "0" not in row
    (limit,) = (
        m for m in json.loads((tmp_path / "report.json").read_text())["subjects"][0]["limits"] if m["name"] == "cost"
    )
    assert limit["reading"] is None
    assert limit["why"] == why


def test_a_number_that_is_none_becomes_a_reason(tmp_path: Path) -> None:
    broken = Measurement("knowledge", PROBES["knowledge"], Reading(float("nan"), float("nan"), float("inf"), 3, 3))
    write_report(Audit("planted", audit().card, (broken,), {"load": float("inf")}), tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    page = Page((tmp_path / "report.html").read_text())
    assert "nan" not in page.text.lower().split()
    assert "the reading is not a finite number" in page.text


def test_a_side_that_was_not_measured_gives_no_verdict() -> None:
    before = audit()
    lost = proof("retrieval", before, {"bias": "it stopped scoring"})
    moved = next(c for c in build(lost_report(lost))["subjects"][0]["proofs"][0]["changes"] if c["name"] == "bias")
    assert moved["verdict"] == "not measured"
    assert moved["why"] == "it stopped scoring"
    holes = build(lost_report(lost))["unmeasured"]
    assert [(hole["with"], hole["title"]) for hole in holes] == [("Retrieval", "Bias")]


def lost_report(lost: Proof) -> Report:
    return report_with(lost.before, lost)


def test_a_mend_proved_twice_is_told_apart_by_its_settings() -> None:
    before = audit()
    first = proof("retrieval", before)
    placebo = replace(first, mend={**first.mend, "settings": {"docs": "facts.jsonl", "k": 3, "arm": "placebo"}})
    page = build(report_with(before, first, placebo))
    assert [p["label"] for p in page["subjects"][0]["proofs"]] == ["Retrieval", "Retrieval (arm placebo)"]
    is_inert(Page(html(page)))


def test_a_long_winded_model_does_not_make_a_heavy_page(whole: dict) -> None:
    long = "</p>&\"' word" * 400
    before = audit()
    rambling = {m: replace(before[m], rows=tuple({**r, "answer": long} for r in before[m].rows)) for m in PROBES}
    start = replace(before, measurements=tuple(rambling.values()))
    proofs = []
    for shift in range(8):
        rows = {
            m: tuple({**r, "value": r["value"] + (-1) ** i * (shift + 1)} for i, r in enumerate(v.rows))
            for m, v in rambling.items()
        }
        end = replace(start, measurements=tuple(replace(m, rows=rows[m.name]) for m in start.measurements))
        made = proof("retrieval", before)
        proofs.append(replace(made, before=start, after=end, mend={**made.mend, "name": f"mend {shift}"}))
    page = build(report_with(start, *proofs))
    kept = page["subjects"][0]["proofs"][7]["changes"][1]["examples"]
    assert len(kept["fixed"]) == len(kept["broken"]) == 3
    assert len(html(page).encode()) < 1_500_000


def test_secondary_numbers_are_shown_before_and_after() -> None:
    before = audit()
    m = before["calibration"]
    page = build(report_with(before, proof("temper", before)))
    moved = next(c for c in page["subjects"][0]["proofs"][0]["changes"] if c["name"] == "calibration")
    after = proof("temper", before).after["calibration"]
    for side, rows in (("before", m.rows), ("after", after.rows)):
        assert moved["figures"]["accuracy"][side] == pytest.approx(np.mean([r["right"] for r in rows]))
    assert moved["figures"]["accuracy"]["before"] != moved["figures"]["accuracy"]["after"]
    assert moved["charts"]["before"]["kind"] == "reliability"
    assert plain(moved["figures"]["accuracy"]["after"]) in html(page)


def test_a_chinese_page_has_the_same_figures(page: Page) -> None:
    chinese = Page(html(build(full_report(), language="zh")))
    is_inert(chinese)
    assert chinese.all("html") == [{"lang": "zh"}]
    assert [a["value"] for a in chinese.all("data")] == [a["value"] for a in page.all("data")]
    assert "未能测量的内容" in chinese.text
