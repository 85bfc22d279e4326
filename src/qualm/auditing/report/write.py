"""Writes a report into a folder, every file whole or not at all."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qualm.auditing.record import ROWS, SIDES, save
from qualm.auditing.report.build import build, unique
from qualm.auditing.report.content import Report, report_of
from qualm.auditing.report.html import html
from qualm.auditing.report.markdown import markdown
from qualm.auditing.types import Audit, Proof
from qualm.files import hash_file, write_json, write_text

OWN = "rows"  # the folder for rows that no record in the report's folder holds yet


def write_report(report: Report | Audit | Proof, folder: Path | str, language: str = "en") -> Path:
    """Write report.html, report.md and report.json into `folder`; returns the page.

    The rows it rests on are those of the records that stand in the folder (as `record.save` wrote them); where there
    are none they are saved under rows/. They come first and the page last, so a page never names a missing file.
    """
    folder = Path(folder)
    found = _records(report, folder)
    report = report_of(report)
    rows = found or list(_save(report, folder))
    page = build(report, [_file(path, folder) for path in rows], language)
    write_json(folder / "report.json", page)
    write_text(folder / "report.md", markdown(page))
    write_text(folder / "report.html", html(page))
    return folder / "report.html"


def _records(report: Report | Audit | Proof, folder: Path) -> list[Path]:
    """The rows of the records that were saved where this report goes."""
    if isinstance(report, Audit):
        patterns = [ROWS]
    elif isinstance(report, Proof):
        patterns = [f"{side}/{ROWS}" for side in SIDES]
    else:
        patterns = [f"*/*/{ROWS}", *(f"*/*/{side}/{ROWS}" for side in SIDES)]
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.relative_to(folder).parts[0] != OWN)


def _save(report: Report, folder: Path) -> Iterator[Path]:
    """Every audit of the report that has rows, once."""
    taken: Counter[str] = Counter()
    known: list[Audit] = []
    for subject in report.subjects:
        for audit in (subject.audit, *(side for proof in subject.proofs for side in (proof.before, proof.after))):
            if audit is None or any(audit is one for one in known) or not any(m.rows for m in audit.measurements):
                continue
            known.append(audit)
            name = unique(audit.subject, taken)
            save(audit, folder / OWN / name)
            yield folder / OWN / name / ROWS


def _file(path: Path, folder: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    return {"path": path.relative_to(folder).as_posix(), "lines": lines, "sha256": hash_file(path)}
