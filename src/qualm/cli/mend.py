"""`qualm mend`: mend a model, prove what that changed, save it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.cli.probing import Probing, chosen
from qualm.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Mending:
    """What to do to the model.

    Attributes:
        with_: The name of a mend: see qualm list mends.
        output: The folder of the mended model; the proof and its report lie in its folder "proof".
        set_: A setting of the mend whose name is also a flag of this verb: --set seed=1. May be given several times.
        force: Write into a folder that is not empty.
    """

    with_: Annotated[str, Parameter(name="--with")]
    output: Annotated[Path, Parameter(name=["--output", "-o"])]
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    force: Annotated[bool, Parameter(negative="")] = False


def mend(
    model: str,
    /,
    *,
    mending: Annotated[Mending, Parameter(name="*")],
    probing: Annotated[Probing, Parameter(name="*")] = Probing(),
    common: Common = Common(),
    **settings: Annotated[str, Parameter(help="Any setting of the mend: --docs DIR, --k 5.")],
) -> None:
    """Mend a model, put every probe to it before and after, and save it with the proof.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
    """
    output = mending.output
    if not mending.force and output.is_dir() and any(output.iterdir()):
        raise UsageError("is not empty", where=str(output), then="name another folder, or add --force")
    probes = chosen(probing)
    wanted = {**settings, **dict(pair(text) for text in mending.set_)}
    chosen_mend = rooms.apply.make(mending.with_, {key.replace("-", "_"): value for key, value in wanted.items()})
    lm = load(model, common)
    with rooms.bars.Bar(common) as bar:
        proof, mended = rooms.prove.prove_and_keep(
            lm, chosen_mend, probes, cache=common.answers, quick=probing.quick, on_progress=bar.update
        )
    rooms.apply.save(mended, output)
    rooms.record.save(proof, output / "proof")
    page = rooms.report.write_report(proof, output / "proof")
    common.result(rooms.record.document(proof), rooms.tables.proof_table(proof))
    common.remark(f"mended model: {output}   report: {page}")


def pair(text: str) -> tuple[str, str]:
    """ "seed=1" as ("seed", "1")."""
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise UsageError(f"{text!r} is no setting", where="--set", then="write --set KEY=VALUE")
    return key, value
