"""Model folders: config.json and model.safetensors, whole or in shards, as transformers reads and writes them.

Everything that comes from outside is checked here; what is refused is refused with a reason.
"""

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qualm import registry
from qualm.errors import InputError
from qualm.files import hash_json, read_json, write_json, writing
from qualm.models._gguf_families import read_gguf
from qualm.models.base import Config, Model
from qualm.models.layers import left_float, quantize_int8

__all__ = [
    "build_model",
    "bytes_of",
    "load_model",
    "model_class",
    "parameters",
    "read_gguf",
    "save_model",
    "weights_hash",
]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SCHEMA = "qualm.model/1"  # of qualm.json
INT8 = "qualm-int8"
KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int8: "I8"}
TIED = ("weight", "weight_scale")  # what a tied module shares; a bias stays its own
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".th", ".mar"}


def load_model(path: Path | str, dtype: torch.dtype | None = torch.float32) -> Model:
    """The model in a folder (config.json and safetensors) or in a .gguf file, in evaluation mode.

    Float weights become `dtype`, or keep the file's with None. Raises InputError saying what is wrong, and where:
    missing, cut off or damaged files, pickles, unknown families and keys, tensors that do not fit, NaN or infinity.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        config, state, _ = read_gguf(path)
        return build_model(config, state, str(path), dtype)
    _check_path(path)
    where = str(path / CONFIG)
    raw = read_json(where)
    if not isinstance(raw, dict):
        raise InputError("is not a JSON object", where=where, then="take the file from the checkpoint again")
    kept_float = _kept_float(raw.pop("quantization_config", None), where)
    config = model_class(raw.get("model_type"), where).config_class.from_hf(raw, where)
    return build_model(config, _read_folder(path), str(path), dtype, kept_float)


def model_class(model_type: Any, where: str = CONFIG) -> type[Model]:
    """The class for a config.json's model_type. Raises InputError with the nearest name."""
    return registry.find("models", family_of(model_type, where))


def family_of(model_type: Any, where: str = CONFIG) -> str:
    """The name of the family that has a config.json's model_type. Raises InputError with the nearest name."""
    known: dict[str, str] = {}
    for name in registry.names("models"):
        found = registry.find("models", name)
        if issubclass(found, Model):
            known |= dict.fromkeys(found.config_class.model_types, name)
    if isinstance(model_type, str) and model_type in known:
        return known[model_type]
    near = get_close_matches(str(model_type), known, 1)
    raise InputError(
        "key 'model_type' is missing" if model_type is None else f"model_type {model_type!r} is not known",
        where=where,
        then=f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}",
    )


def build_model(
    config: Config,
    state: Mapping[str, Tensor],
    where: str,
    dtype: torch.dtype | None = torch.float32,
    kept_float: list[str] | None = None,
) -> Model:
    """A model of these weights, which it takes without a copy where it can.

    `kept_float` given: the weights are `quantize_int8`'s, with these modules left alone.
    Raises InputError naming the tensor that is missing, not known, of the wrong shape or kind, or not finite.
    """
    family = model_class(config.model_type, where)
    state = {new: tensor for old, tensor in state.items() if (new := family.rename(old, config)) is not None}
    config = family.settle(config, state)
    if config.layers > len(state):
        raise InputError(
            f"the config names {config.layers} layers, and there are only {len(state)} tensors",
            where=where,
            then="take config and weights from the same checkpoint",
        )
    with torch.device("meta"):
        model = family(config)
        if kept_float is not None:
            quantize_int8(model, kept_float)
    expected = model.state_dict()
    _tie(model, state, where)
    _check_names(expected, state, where)
    model.load_state_dict({k: _fit(k, state[k], expected[k], dtype, where) for k in expected}, assign=True)
    model.tie()
    return model.eval()


def save_model(model: Model, path: Path | str, shard_bytes: int = 5_000_000_000) -> None:
    """Write `config.json` and the weights in shards of up to `shard_bytes`; tied weights are stored once.

    Every file is whole or not there, and config.json comes last in a new folder. Raises QualmError if the disk is full.
    """
    path = Path(path)
    own = {model.name_in_file(name, model.config): tensor for name, tensor in _own(model).items()}
    shards = _shards(own, shard_bytes)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [WEIGHTS]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(path / name, shard)
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        write_json(path / INDEX, {"metadata": {"total_size": bytes_of(model)}, "weight_map": weight_map})
    raw = model.config.to_hf(str(next(model.parameters()).dtype).removeprefix("torch."))
    skipped = left_float(model)
    if skipped is not None:
        raw["quantization_config"] = {"quant_method": INT8, "modules_to_not_convert": skipped}
    write_json(path / CONFIG, raw)
    kept = {*names, INDEX} if len(shards) > 1 else {*names}
    for stale in {WEIGHTS, INDEX, *(file.name for file in path.glob("model-*-of-*.safetensors"))} - kept:
        (path / stale).unlink(missing_ok=True)


def weights_hash(model: Model) -> str:
    """SHA-256 (hex) of what decides the logits: names, dtypes, shapes and bytes of the weights, and the config's maths.

    The same for the same weights, whatever kind of file they came from.
    """
    whole = hashlib.sha256(hash_json(model.config.maths()).encode())
    for name, tensor in sorted(_own(model).items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(_raw(tensor))
    return whole.hexdigest()


def parameters(model: Model) -> int:
    """How many weights, tied ones once; scales (of 8-bit weights, of adapters) are not counted."""
    return sum(t.numel() for name, t in _own(model).items() if not name.endswith("_scale"))


def bytes_of(model: Model) -> int:
    """What the weights take, in memory and on disk, tied ones once."""
    return sum(t.numel() * t.element_size() for t in _own(model).values())


def _own(model: Model) -> dict[str, Tensor]:
    """The weights on the CPU, without those shared with another module."""
    shared = {f"{name}.{key}" for name in model.ties for key in TIED}
    state = model.state_dict()
    return {name: t.detach().cpu().contiguous() for name, t in state.items() if name not in shared}


def _shards(state: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        size += tensor.numel() * tensor.element_size()
        if shards[-1] and size > limit:
            shards.append({})
            size = tensor.numel() * tensor.element_size()
        shards[-1][name] = tensor
    return shards


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, straight from the weights: length of the header, header, bytes."""
    ends = list(accumulate((t.numel() * t.element_size() for t in tensors.values()), initial=0))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for (name, tensor), place in zip(tensors.items(), pairwise(ends), strict=True):
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the weights are aligned
    with writing(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(_raw(tensor))


def _raw(tensor: Tensor) -> memoryview:
    return tensor.view(torch.uint8).numpy().data


def _kept_float(quantization: Any, where: str) -> list[str] | None:
    """The modules that our 8-bit checkpoint left alone, None for a float one. Raises InputError for any other kind."""
    if quantization is None:
        return None
    kept = quantization.get("modules_to_not_convert") if isinstance(quantization, dict) else None
    named = isinstance(kept, list) and all(isinstance(name, str) for name in kept)
    if not named or quantization.get("quant_method") != INT8:
        raise InputError(
            f"weights quantised as {quantization!r} cannot be read", where=where, then="use the unquantised checkpoint"
        )
    return kept


def _check_path(path: Path) -> None:
    """Raises InputError if there is no model folder at `path`, saying what there is instead."""
    if path.suffix in PICKLES and path.is_file():
        raise _pickle(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), then="name a folder that holds config.json")
    if path.is_file():
        raise InputError("is a file, and a model is a folder or a .gguf file", where=str(path), then="name its folder")
    if not (path / WEIGHTS).is_file() and not (path / INDEX).is_file():
        pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise _pickle(pickles[0])
        raise InputError(f"holds no {WEIGHTS}", where=str(path), then="name a folder that holds a model")
    if not (path / CONFIG).is_file():
        raise InputError(f"holds no {CONFIG}", where=str(path), then="take it from where the weights came from")


def _pickle(path: Path) -> InputError:
    return InputError(
        "is a pickle, which can run code when it is read",
        where=str(path),
        then="convert it where you trust it: transformers' AutoModelForCausalLM.from_pretrained(FOLDER)"
        ".save_pretrained(FOLDER) writes safetensors",
    )


def _read_folder(path: Path) -> dict[str, Tensor]:
    if (path / WEIGHTS).is_file():
        return read_tensors(path / WEIGHTS)
    index = read_json(path / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError("has no weight_map of names", where=str(path / INDEX), then="take the file again")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise InputError(f"names a file outside its folder: {name!r}", where=str(path / INDEX), then="mend it")
        if not (path / name).is_file():
            raise InputError("this shard is missing", where=str(path / name), then="take it from the checkpoint again")
        state |= read_tensors(path / name)
    lost = sorted(set(places) - set(state))
    if lost:
        raise InputError(
            f"tensor {lost[0]!r} is not in {places[lost[0]]}", where=str(path / INDEX), then="take the shards again"
        )
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            start = file.read(8)
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
            raise _pickle(path) from error
        missing = _missing_bytes(path)
        what = f"is cut off: at least {missing} bytes are missing" if missing else f"is damaged ({error})"
        raise InputError(what, where=str(path), then="copy or download it again") from error


def _missing_bytes(path: Path) -> int:
    """How much shorter a safetensors file is than its header says; 0 if that cannot be told."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or size < 8 + length:
            return 8 + length - size if length < 2**32 else max(0, 8 - size)
        try:
            header = json.loads(file.read(length))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
            return 0
    return max(0, 8 + length + end - size) if isinstance(end, int) else 0


def _tie(model: Model, state: dict[str, Tensor], where: str) -> None:
    """Give tied modules the tensors of their source. Raises InputError if the file holds other ones for them."""
    for name, source in model.ties.items():
        for key in TIED:
            own, shared = state.get(f"{name}.{key}"), state.get(f"{source}.{key}")
            if shared is None:
                continue
            if own is not None and not torch.equal(own, shared):
                raise InputError(
                    f"tensor '{name}.{key}' differs from '{source}.{key}', and the config says that they are tied",
                    where=where,
                    then="set tie_word_embeddings to false in config.json",
                )
            state[f"{name}.{key}"] = shared


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    for names, words in ((set(expected) - set(state), "is missing"), (set(state) - set(expected), "is not known")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise InputError(
                f"tensor {min(names)!r} {words}{more}", where=where, then="take config and weights from one checkpoint"
            )


def _fit(name: str, tensor: Tensor, like: Tensor, dtype: torch.dtype | None, where: str) -> Tensor:
    """The tensor in the wanted kind. Raises InputError naming it if it cannot be the weight that `like` describes."""
    if tensor.shape != like.shape:
        raise InputError(
            f"tensor {name!r} is {list(tensor.shape)}, and the config says {list(like.shape)}",
            where=where,
            then="take config and weights from one checkpoint",
        )
    if tensor.is_floating_point() != like.is_floating_point() or like.dtype == torch.int8 != tensor.dtype:
        raise InputError(
            f"tensor {name!r} holds {tensor.dtype}, not {like.dtype}",
            where=where,
            then="use the unquantised checkpoint",
        )
    if not tensor.is_floating_point():
        return tensor
    low, high = tensor.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = tensor.numel() - int(torch.isfinite(tensor).sum())
        raise InputError(
            f"tensor {name!r} holds NaN or infinity in {bad} of {tensor.numel()} places",
            where=where,
            then="use an earlier checkpoint",
        )
    return tensor if dtype is None or name.endswith(".weight_scale") else tensor.to(dtype)
