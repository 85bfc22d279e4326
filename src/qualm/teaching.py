"""Teach a language model labelled rows."""

from pathlib import Path

from qualm.errors import Unsupported
from qualm.lm.base import LM
from qualm.lm.local import Local
from qualm.training import tuning as training
from qualm.training.loop import Hooks
from qualm.training.recipe import Tuning

__all__ = ["Tuning", "tune"]


def tune(lm: LM, data: Path | str, output: Path | str, tuning: Tuning, hooks: Hooks = Hooks()) -> training.Tuned:
    """Teach the model the rows in `data` (see `Tuning`); `output` becomes a model directory, and `lm` stays as it is.

    Raises Unsupported if its weights are not to be had, and all that `qualm.training.tuning.tune` raises.
    """
    if not isinstance(lm, Local):
        raise Unsupported(f"the weights of {lm.name} are not to be had", then="name a model folder")
    return training.tune(lm.model, lm.tokens, data, output, tuning, hooks)
