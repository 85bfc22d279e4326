"""Write any model whose weights are here as a folder in the Hugging Face layout."""

import copy
from pathlib import Path

import torch

from qualm.errors import Unsupported, UsageError
from qualm.lm.base import LM
from qualm.lm.endpoint import Endpoint
from qualm.lm.fake import Fake
from qualm.lm.local import Local
from qualm.models.layers import left_float

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write_out(lm: LM, folder: Path | str, dtype: str = "float32") -> Local:
    """Write the model into `folder`, its weights in `dtype`; returns what was written, which `load` gives back.

    Raises Unsupported for what is not weights and a tokenizer (an endpoint, a fake, a mend around a model) and for
    8-bit weights in another dtype; UsageError for another dtype, or the model's own folder.
    """
    folder, local = Path(folder), with_weights(lm)
    if dtype not in DTYPES:
        raise UsageError(f"{dtype!r} is not a dtype of weights", then=f"say one of {', '.join(DTYPES)}")
    if local.path is not None and local.path.resolve() == folder.resolve():
        raise UsageError("is the model's own folder", where=str(folder), then="name another folder")
    if dtype != "float32":
        if left_float(local.model) is not None:
            raise Unsupported(f"the weights of {lm.name} are in 8 bits, and stay so", then="leave the dtype out")
        local = local.replace(copy.deepcopy(local.model).to(DTYPES[dtype]))
    local.save(folder)
    return local


def with_weights(lm: LM) -> Local:
    """The model if it is nothing but weights and a tokenizer. Raises Unsupported saying what it is instead."""
    match lm:
        case Local():
            return lm
        case Endpoint():
            raise Unsupported(f"{lm.name} is served at {lm.url}, and its weights are not here")
        case Fake():
            raise Unsupported(f"{lm.name} is made up, and has no weights")
    raise Unsupported(
        f"{lm.name} is a model with a mend around it, which other programs do not know",
        then="keep it in its folder, or export the model inside it",
    )
