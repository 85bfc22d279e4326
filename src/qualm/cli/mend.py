"""`qualm mend`: mend a model, prove what that changed, save it."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.bars import Bar
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.cli.probing import Probing, chosen


def mend(
    model: str,
    /,
    *,
    with_: Annotated[str, Parameter(name="--with")],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    probing: Annotated[Probing, Parameter(name="*")] = Probing(),
    common: Common = Common(),
    **settings: Annotated[str, Parameter(help="Any setting of the mend: --docs DIR, --k 5.")],
) -> None:
    """Mend a model, put every probe to it before and after, and save it with the proof.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        with_: The name of a mend: see qualm list mends.
        output: The folder of the mended model; the proof and its report lie in its folder "proof".
    """
    probes = chosen(probing)
    chosen_mend = rooms.apply.make(with_, {key.replace("-", "_"): value for key, value in settings.items()})
    lm = load(model, common)
    with Bar(common) as bar:
        proof, mended = rooms.prove.prove_and_keep(
            lm, chosen_mend, probes, cache=common.answers, quick=probing.quick, on_progress=bar.update
        )
    rooms.apply.save(mended, output)
    rooms.record.save(proof, output / "proof")
    page = rooms.report.write_report(proof, output / "proof")
    common.result(rooms.record.document(proof), rooms.tables.proof_table(proof))
    common.remark(f"mended model: {output}   report: {page}")
