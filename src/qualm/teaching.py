"""Teach a language model labelled rows."""

from pathlib import Path

from qualm.errors import Unsupported
from qualm.lm.base import LM
from qualm.lm.load import HUB
from qualm.lm.local import Local, read_about
from qualm.models._adapter_files import Base, is_adapter
from qualm.models._adapters import merged
from qualm.training import tuning as training
from qualm.training.loop import Hooks
from qualm.training.recipe import Tuning

__all__ = ["Tuning", "tune"]


def tune(lm: LM, data: Path | str, output: Path | str, tuning: Tuning, hooks: Hooks = Hooks()) -> training.Tuned:
    """Teach the model the rows in `data` (see `Tuning`); `output` becomes a model directory, and `lm` stays as it is.

    With `tuning.lora` it becomes an adapter's directory, which names the model as its base. Raises Unsupported if the
    weights are not to be had, and all that `qualm.training.tuning.tune` raises.
    """
    if not isinstance(lm, Local):
        raise Unsupported(f"the weights of {lm.name} are not to be had", then="name a model folder")
    pupil = training.Pupil(merged(lm.model), lm.tokens, base_of(lm) if tuning.lora else None)
    return training.tune(pupil, data, output, tuning, hooks)


def base_of(lm: Local) -> Base | None:
    """How an adapter's files name the model; None if its weights lie nowhere as they are, or it is an adapter."""
    if lm.path is None or not lm.path.exists() or is_adapter(lm.path):
        return None
    if lm.path.is_dir() and read_about(lm.path).get("mends", []) != list(lm.mends):
        return None
    fetched = ":" in lm.name or HUB.fullmatch(lm.name)  # named by its spec: the path is a cache's
    return Base(lm.name if fetched else str(lm.path.resolve()), lm.card.weights, lm.mends)
