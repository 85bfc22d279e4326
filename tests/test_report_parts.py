"""The parts of a report: numbers as people read them, axes, charts, examples, markup, and the words of a language."""

import ast
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from made_up import PROBES, audit, change, measurement, proof, unmeasured
from qualm.auditing.report import Report, Subject
from qualm.auditing.report.build import build
from qualm.auditing.report.examples import examples
from qualm.auditing.report.html import html
from qualm.auditing.report.markdown import fenced, inline
from qualm.auditing.report.series import chart
from qualm.auditing.report.words import Words
from qualm.cases import Case
from qualm.errors import UsageError
from qualm.page.axes import ends, reined, ticks
from qualm.page.figures import between, difference, duration, figure, p_value, places, plain, size
from qualm.page.markup import Html, h

REPORT = Path(str(resources.files("qualm.auditing.report")))


@pytest.mark.parametrize("better", ["high", "low"])
def test_fixed_and_broken_follow_the_good_direction(better: str) -> None:
    name = "knowledge" if better == "high" else "confabulation"
    base = measurement(name)
    cases = tuple(Case(str(i), "?", group=f"g{i // 4}") for i in range(8))
    before = replace(base, cases=cases, rows=tuple({"value": 0.0, "answer": "a"} for _ in cases))
    after = replace(before, rows=tuple({"value": float(i != 5), "answer": "b"} if i != 6 else {} for i in range(8)))
    kept = examples(before, after)
    up, down = ("fixed", "broken") if better == "high" else ("broken", "fixed")
    assert [e["id"] for e in kept[up]] == ["0", "4", "1"]
    assert kept[down] == []


def test_examples_show_the_largest_moves_first() -> None:
    base = measurement("perplexity")
    cases = tuple(Case(str(i), "?") for i in range(5))
    before = replace(base, cases=cases, rows=tuple({"value": 2.0} for _ in cases))
    after = replace(before, rows=tuple({"value": v} for v in (1.9, 1.0, 2.0, 4.0, 1.5)))
    kept = examples(before, after)
    assert [e["id"] for e in kept["fixed"]] == ["1", "4", "0"]
    assert [e["id"] for e in kept["broken"]] == ["3"]


def test_a_stopwatch_has_no_examples_and_equal_answers_show_their_numbers() -> None:
    assert examples(measurement("cost"), measurement("cost", -50.0)) == {"fixed": [], "broken": []}
    before = audit()
    rows = tuple({**r, "answer": "the same"} for r in before["calibration"].rows)
    start = replace(before, measurements=(replace(before["calibration"], rows=rows),))
    moved = tuple({**r, "value": r["value"] / 2} for r in rows)
    end = replace(start, measurements=(replace(start["calibration"], rows=moved),))
    made = replace(proof("temper", before), before=start, after=end)
    made = replace(made, changes=(made["calibration"],))
    page = build(Report("made up", (Subject("planted", start.card, start, (), (made,)),)))
    kept = page["subjects"][0]["proofs"][0]["changes"][0]["examples"]["fixed"][0]
    assert f'<data value="{kept["after"]["value"]!r}">{plain(kept["after"]["value"])}</data>' in html(page)


def test_a_dose_chart_has_the_mean_at_each_dose() -> None:
    m = measurement("memorisation")
    drawn = chart(m)
    doses = {p["x"]: p["y"] for p in drawn["points"]}
    assert list(doses) == [0, 1, 4, 16, 64]
    assert doses[16] == pytest.approx(np.mean([r["value"] for r in m.rows if r["dose"] == 16]))
    assert (drawn["x"], drawn["y"]) == ("copies in training", "exposure in bits")
    assert all(0 < p["high"] - p["low"] < 1 and p["low"] < p["y"] < p["high"] for p in drawn["points"])


def test_a_scatter_has_the_correlation_and_slope_of_its_rows() -> None:
    m = measurement("bias")
    drawn = chart(m)
    x = [r["planted log-odds"] for r in m.rows]
    y = [r["measured log-odds"] for r in m.rows]
    assert drawn["r"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert drawn["slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
    some = type("Some", (type(m.probe),), {"chart": f"{m.probe.chart},odd"})()
    odd = replace(m, probe=some, rows=tuple({**r, "odd": float(i % 2)} for i, r in enumerate(m.rows)))
    assert sum(p["n"] for p in chart(odd)["points"]) == 72
    flat = replace(m, rows=tuple({**r, "measured log-odds": 1.0} for r in m.rows))
    assert chart(flat)["r"] is None


def test_reliability_bins_hold_equal_mass_and_never_part_equal_confidence() -> None:
    m = measurement("calibration")
    rows = tuple({"confidence": c, "right": float(i % 2)} for i, c in enumerate([0.9] * 50 + [0.5] * 50))
    drawn = chart(replace(m, rows=rows, cases=m.cases[:100]))
    assert [(p["x"], p["y"], p["n"]) for p in drawn["points"]] == [(0.5, 0.5, 50), (pytest.approx(0.9), 0.5, 50)]
    spread = chart(m)["points"]
    assert sum(p["n"] for p in spread) == 300
    assert max(p["n"] for p in spread) <= 2 * min(p["n"] for p in spread)


def test_an_unknown_chart_is_refused_and_a_probe_without_rows_has_none() -> None:
    assert chart(unmeasured("bias", "no")) is None
    assert chart(measurement("knowledge")) is None
    odd = type("Odd", (type(PROBES["bias"]),), {"chart": "pie"})()
    with pytest.raises(UsageError, match="no chart is named 'pie'"):
        chart(replace(measurement("bias"), probe=odd))


@pytest.mark.parametrize(
    ("value", "unit", "digits", "text"),
    [(0.5, "share", 0, "50%"), (0.0004, "share", 0, "<1%"), (0.0, "share", 0, "0%"), (0.9996, "share", 1, ">99.9%"),
     (1.0, "share", 1, "100.0%"), (-0.02, "share", 1, "−2.0%"), (1.2345, "bits per byte", 3, "1.234"),
     (12345.6, "tokens/s", 0, "12,346"), (4.4e6, "bytes", 0, "4.4 MB"), (None, "share", 0, "–"),
     (-0.0001, "nats", 3, "0.000")],
)  # fmt: skip
def test_figures_as_people_read_them(value: float | None, unit: str, digits: int, text: str) -> None:
    assert figure(value, unit, digits) == text


def test_figures_of_changes_times_and_sizes() -> None:
    assert difference(0.431, "share", 0) == "+43"
    assert difference(-0.0004, "share", 1) == "0.0"
    assert difference(-3.1e6, "bytes", 0) == "−3.1 MB"
    assert between(0.36, 0.49, "share", 0) == "36 to 49%"
    assert between(4.4e6, 4.4e6, "bytes", 0) == "4.4 MB"
    assert [places("share", 0.4, 0.6), places("share", 0.5, 0.51), places("tokens/s", 340, 420)] == [0, 1, 0]
    assert [duration(s) for s in (0.44, 61.4, 3725, None)] == ["0.4 s", "1 min 01 s", "1 h 02 min", "–"]
    assert [size(b) for b in (12, 93e6, 1.2e9)] == ["12 B", "93.0 MB", "1.2 GB"]
    assert [plain(x) for x in (0.00042, 0.9234, 1.0, 54276.3, 0.0, -12.34)] == [
        "0.00042", "0.923", "1.00", "54,276", "0.000", "−12.3"]  # fmt: skip
    assert [p_value(p) for p in (0.0002, 0.0123, 0.5)] == ["p < 0.001", "p = 0.012", "p = 0.50"]


def test_axes_hold_what_is_on_them() -> None:
    assert ends([0.2, 0.9], share=True) == (0.0, 1.0)
    assert ends([-0.12, 0.3], share=True) == (-0.2, 1.0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = list(rng.normal(rng.normal(0, 100), 10 ** rng.uniform(-3, 4), 4))
        low, high = ends(values, share=False)
        assert low <= min(values) <= max(values) <= high
        assert low < high
        marks = ticks(low, high)
        assert 1 <= len(marks) <= 8
        assert all(low - 1e-9 <= m <= high + 1e-9 for m in marks)
    assert reined([1.0, 2.0], [-50.0, 1.9, 90.0]) == [1.0, 2.0, 0.5, 1.9, 2.5]
    assert ends([3.0, 3.0], share=False)[0] < 3.0 <= ends([3.0, 3.0], share=False)[1]


def test_markup_escapes_text_and_refuses_what_could_run() -> None:
    assert (
        h("p", {"title": '"<'}, "<b>", ["&", None], Html("<i></i>"))
        == '<p title="&quot;&lt;">&lt;b&gt;&amp;<i></i></p>'
    )
    assert h("details", {"open": True, "hidden": False}) == "<details open></details>"
    for name, value in (
        ("onclick", "x"),
        ("style", "x"),
        ("href", "https://x"),
        ("src", "x"),
        ("href", "javascript:x"),
    ):
        with pytest.raises(ValueError, match="may not hold"):
            h("a", {name: value})
    assert inline("a|b\n# *c*") == r"a\|b \# \*c\*"
    assert fenced("```").startswith("````text")


def spoken() -> set[str]:
    """Every sentence that the report's code asks a language for."""
    keys = set()
    for file in REPORT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("say", "say.count"):
                said = node.args[2 if ast.unparse(node.func) == "say.count" else 0]
                keys |= {said.value} if isinstance(said, ast.Constant) else set()
    return keys


def test_chinese_has_every_sentence_with_the_same_blanks() -> None:
    chinese = json.loads((REPORT / "zh.json").read_text(encoding="utf-8"))
    assert len(spoken()) > 80
    assert not spoken() - set(chinese)
    blanks = re.compile(r"{\w+}")
    assert all(set(blanks.findall(key)) == set(blanks.findall(text)) for key, text in chinese.items())
    say = Words("zh")
    assert say("{n} better", n=3) == "3 项更好"
    with pytest.raises(UsageError, match="there are: en, zh"):
        Words("tlh")


def test_a_change_agrees_with_the_cases_it_counts() -> None:
    before, after = measurement("knowledge"), measurement("knowledge", 3.0)
    made = change(before, after)
    kept = examples(before, after)
    assert made.fixed >= len(kept["fixed"]) == 3
    assert all(e["before"]["value"] < e["after"]["value"] for e in kept["fixed"])
