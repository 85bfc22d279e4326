"""`qualm compare`: two audits, and a verdict on each limit."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.errors import GateError


def compare(
    before: Path,
    after: Path,
    /,
    *,
    fail_on: Literal["worse"] | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    common: Common = Common(),
) -> int:
    """Compare two audits on the cases that both have.

    Args:
        before: An audit's folder, or a samples_*.jsonl file (or folder of them) of lm_eval --log_samples.
        after: The same, for the other model.
        fail_on: Exit with 3 if a limit got worse.
        output: A folder for the record and the report to look at.
    """
    proof = rooms.prove.compare(before, after)
    if output:
        rooms.record.save(proof, output)
        common.remark(f"report: {rooms.report.write_report(proof, output)}")
    worse = [change.name for change in proof.changes if change.verdict == "worse"]
    common.result(rooms.record.document(proof), rooms.tables.proof_table(proof))
    if fail_on and worse:
        common.remark(f"qualm: worse: {', '.join(worse)}")
        return GateError.exit_code
    return 0
