"""Writes a report into a folder, every file whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qualm.auditing.report.build import build, plain_json, slug
from qualm.auditing.report.content import Report, report_of
from qualm.auditing.report.html import html
from qualm.auditing.report.markdown import markdown
from qualm.auditing.types import Audit, Proof
from qualm.files import hash_file, write_json, write_text, writing


def write_report(report: Report | Audit | Proof, folder: Path | str, language: str = "en") -> Path:
    """Write report.html, report.md, report.json and rows/*.jsonl into `folder`; returns the page.

    The rows are written first and the page last, so a page never names a file that is not there.
    """
    folder = Path(folder)
    report = report_of(report)
    files = [_write_rows(folder, name, audit) for name, audit in _audits(report)]
    page = build(report, files, language)
    write_json(folder / "report.json", page)
    write_text(folder / "report.md", markdown(page))
    write_text(folder / "report.html", html(page))
    return folder / "report.html"


def _audits(report: Report) -> Iterator[tuple[str, Audit]]:
    """Every audit of the report that has rows, once, under a name fit for a file."""
    taken: set[str] = set()
    for subject in report.subjects:
        audits = [subject.audit, *(side for proof in subject.proofs for side in (proof.before, proof.after))]
        known: list[Audit] = []
        for audit in audits:
            if audit is None or any(audit is one for one in known) or not any(m.rows for m in audit.measurements):
                continue
            known.append(audit)
            name = slug(audit.subject)
            while name in taken:
                name += "-again"
            taken.add(name)
            yield name, audit


def _write_rows(folder: Path, name: str, audit: Audit) -> dict[str, Any]:
    path, lines = folder / "rows" / f"{name}.jsonl", 0
    with writing(path) as file:
        for m in audit.measurements:
            for case, row in zip(m.cases, m.rows, strict=True):
                line = {"probe": m.name, "id": case.id, "group": case.group, "part": case.part, "split": case.split}
                line |= {"prompt": case.prompt, "target": case.target, "choices": case.choices, "row": row}
                file.write(json.dumps(plain_json(line), ensure_ascii=False) + "\n")
                lines += 1
    return {"path": f"rows/{path.name}", "lines": lines, "sha256": hash_file(path)}
