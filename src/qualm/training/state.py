"""What a checkpoint holds: the weights, and what the run needs besides to go on bit for bit."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qualm.errors import InputError, QualmError
from qualm.files import read_json, write_json
from qualm.training.optimisers import Optimiser
from qualm.training.parallel import Ranks
from qualm.training.sharded import DTensor, fitted, part, read_moments, whole

FORMAT, VERSION = "qualm.training", 3
FREE = ("machine", "schedule")  # parts of what a run is that may change; the machine with a word
SAID = {name: f"--{name}" for name in ("device", "precision", "threads")} | {"world_size": "--nproc"}  # in words

Tensors = Mapping[str, Tensor]


@dataclass
class Progress:
    """How far a run is; everything here is in the checkpoint. `best` is bits per byte (or what validation reads)."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None  # nats a token, of the last update that was not skipped
    best: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best
    bad: int = 0  # updates skipped in a row
    skipped: int = 0
    finished: bool = False
    recent: list[float] = field(default_factory=list)  # the last losses that were not skipped
    validations: list[tuple[int, float]] = field(default_factory=list)


def weights(model: nn.Module, frozen: bool = False) -> dict[str, Tensor]:
    """Parameters that may change and saved buffers by name, tied ones once; with `frozen` all parameters."""
    kept = set(model.state_dict(keep_vars=True))
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    changing = {name: weight for name, weight in model.named_parameters() if frozen or weight.requires_grad}
    return {name: tensor.detach() for name, tensor in (changing | buffers).items()}


def hash_weights(model: nn.Module) -> str:
    """A content hash of all weights, names and shapes included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights(model, frozen=True).items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(whole(tensor).cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def copy_weights(model: nn.Module, source: Mapping[str, Tensor], where: str = "") -> None:
    """Fill the model from tensors by name. Raises InputError naming the first that is missing or of another shape."""
    with torch.no_grad():
        for name, tensor in weights(model).items():
            if name not in source or source[name].shape != tensor.shape:
                raise InputError(f"weight {name} does not fit the model", where=where, then="use another folder")
            tensor.copy_(fitted(source[name], tensor))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators, as uint8 tensors."""
    state = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(device)
    return state


def write_weights(model: nn.Module, folder: Path) -> None:
    """model.safetensors with the parameters that may change and the saved buffers, tied ones once."""
    save_file({k: v.contiguous() for k, v in weights(model).items()}, folder / "model.safetensors", {"format": "pt"})


def write(folder: Path, model: nn.Module, optimiser: Optimiser, more: Tensors, facts: Mapping[str, Any]) -> None:
    """training.safetensors (moments, and `more`) and training.json, beside the weights."""
    own = {k: t for k, t in moments(model, optimiser).items() if not isinstance(t, DTensor)}
    tensors = {**own, **more}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "training.safetensors")
    write_json(folder / "training.json", {"format": FORMAT, "version": VERSION, **facts})


def moments(model: nn.Module, optimiser: Optimiser) -> dict[str, Tensor]:
    """The optimiser's state by moment and parameter; empty before the first update."""
    state = optimiser.state
    return {
        f"optimiser.{name}.{moment}": tensor
        for name, parameter in model.named_parameters()
        for moment, tensor in state.get(parameter, {}).items()
        if isinstance(tensor, Tensor)
    }


def check_finite(model: nn.Module, optimiser: Optimiser) -> None:
    """Raises QualmError naming the first weight or moment that is not finite."""
    for name, tensor in (weights(model) | moments(model, optimiser)).items():
        if tensor.is_floating_point() and not torch.isfinite(part(tensor)).all():
            raise QualmError(f"{name} is not finite, so no checkpoint is written", then="lower the learning rate")


def read_facts(folder: Path) -> dict[str, Any]:
    """training.json. Raises InputError if it is of another version."""
    facts = read_json(folder / "training.json")
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise InputError(f"not {FORMAT} of version {VERSION}", where=str(folder / "training.json"), then="start anew")
    return facts


def restore_weights(folder: Path, model: nn.Module) -> None:
    """Fill the model from the model*.safetensors of a folder."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    copy_weights(model, tensors, str(folder))


def restore(folder: Path, model: nn.Module, optimiser: Optimiser, ranks: Ranks) -> tuple[Progress, dict[str, Tensor]]:
    """Bring model, optimiser and torch's generators back to where the checkpoint was taken.

    Returns the progress, and all tensors that the run kept.
    """
    restore_weights(folder, model)
    parameters = dict(model.named_parameters())
    tensors = {**load_file(folder / "training.safetensors"), **read_moments(folder, parameters)}
    for name, parameter in parameters.items():
        start = f"optimiser.{name}."
        own = {k.removeprefix(start): t.clone() for k, t in tensors.items() if k.startswith(start)}
        if own:
            optimiser.restore(parameter, {k: fitted(t, parameter).to(parameter.device) for k, t in own.items()})
    progress = read_facts(folder)["progress"]
    random = ranks.mine(tensors, ("random.cpu", "random.cuda"))
    if not random:  # there were fewer processes then
        torch.manual_seed(ranks.seed(progress["step"]))
    if "random.cpu" in random:
        torch.set_rng_state(random["random.cpu"])
    if "random.cuda" in random:
        torch.cuda.set_rng_state(random["random.cuda"], next(model.parameters()).device)
    progress["validations"] = [(step, value) for step, value in progress["validations"]]
    return Progress(**progress), tensors


def check_same(found: Mapping[str, Any], now: Mapping[str, Any], strict: bool, where: Path) -> list[str]:
    """Compare what decides a run with what decided it when it was saved, part by part and name by name.

    Raises InputError for what would be another run, and with `strict` QualmError for another machine, on which the
    same steps give other bits; without, returns what to tell of that.
    """
    for kind in (kind for kind in now if kind not in FREE):
        old, new = found.get(kind, {}), now[kind]
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise InputError(
                    f"{kind}.{name} was {old.get(name)!r} and is now {new.get(name)!r}",
                    where=str(where),
                    then="use the old one, or name another folder",
                )
    changed = {name: (old, now["machine"][name]) for name, old in found["machine"].items()}
    changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    for name, (old, new) in changed.items():
        if strict:
            raise QualmError(
                f"{name} was {old} and is now {new}, so the run would not go on bit for bit",
                where=str(where),
                then=f"say {SAID.get(name, name)} {old} again, or --no-strict (strict=False)",
            )
    return [f"{name} was {a} and is now {b}: the run does not go on bit for bit" for name, (a, b) in changed.items()]


def facts_of(progress: Progress, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"progress": asdict(progress), **identity}
