"""Adapters as folders in PEFT's format: `adapter_config.json`, `adapter_model.safetensors`, and our qualm.json.

qualm.json names the base by the hash of its weights, and says which config it gets where that differs (a new head).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.files import read_json, write_json
from qualm.models._adapters import (
    Adapted,
    adapted_layers,
    ends_with,
    linear_layers,
    own_modules,
    shared,
    within,
)
from qualm.models.base import Decoder, Encoder, EncoderDecoder, Model
from qualm.models.store import SCHEMA, read_tensors, write_tensors

CONFIG, WEIGHTS, OWN = "adapter_config.json", "adapter_model.safetensors", "qualm.json"
START = "base_model.model."
PARTS = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")
HEADS = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS", "question": "QUESTION_ANS"}
LAST = ("classifier.weight", "out_proj.weight", "qa_outputs.weight")  # of a head: a row a label
OTHER_MATHS = ("alpha_pattern", "rank_pattern", "lora_bias", "trainable_token_indices", "layer_replication")
OTHER_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # which change the base's weights too


@dataclass(frozen=True)
class Base:
    """What an adapter is for: a spec (or an absolute path), the hash of its weights, and what it was before mends."""

    spec: str
    weights: str
    mends: tuple[str, ...] = ()


def is_adapter(path: Path) -> bool:
    return (path / CONFIG).is_file()


def write_adapter(model: Model, base: Base, folder: Path, about: Mapping[str, Any]) -> None:
    """An adapter's folder, which peft reads; a head for labels is kept whole. qualm.json comes last."""
    layers, whole = adapted_layers(model), own_modules(model)
    kept = {f"{name}{part}": tensor for name, layer in layers.items() for part, tensor in _parts(layer).items()}
    kept |= {name: tensor for name, tensor in model.state_dict().items() if within(name, whole)}
    theirs = {START + _in_file(model, name): tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
    write_tensors(folder / WEIGHTS, theirs)
    write_json(folder / CONFIG, _config(model, base, whole))
    here = Path(base.spec).is_absolute()
    where = Path(os.path.relpath(base.spec, folder)).as_posix() if here else base.spec
    own: dict[str, Any] = {"base": where, "base_weights": base.weights}
    if whole:
        own["config"] = asdict(model.config)
    write_json(folder / OWN, {"schema": SCHEMA, "world": None, "mends": list(base.mends), **about, "adapter": own})


def _parts(layer: Adapted) -> dict[str, Tensor]:
    length = layer.lora_magnitude_vector
    tensors = (layer.lora_A.weight, layer.lora_B.weight, *([] if length is None else [length]))
    return dict(zip(PARTS, tensors, strict=False))


def _config(model: Model, base: Base, whole: tuple[str, ...]) -> dict[str, Any]:
    layers = adapted_layers(model)
    some = next(iter(layers.values()))
    rank = some.lora_A.weight.shape[0]
    endings = sorted({name.rpartition(".")[2] for name in layers})
    every = {name for name, _ in model.named_modules() if any(ends_with(name, end) for end in endings)}
    named = endings if every == set(layers) else [_in_file(model, name) for name in layers]
    return {
        "peft_type": "LORA",
        "task_type": _task(model),
        "base_model_name_or_path": base.spec,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": float(some.lora_scale) * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": some.lora_magnitude_vector is not None,
        "use_rslora": False,
        "fan_in_fan_out": some.turned,
        "target_modules": named,
        "modules_to_save": [_in_file(model, name) for name in whole] or None,
    }


def _task(model: Model) -> str:
    if isinstance(model, Encoder):
        return HEADS.get(model.config.head, "FEATURE_EXTRACTION")
    return {Decoder: "CAUSAL_LM", EncoderDecoder: "SEQ_2_SEQ_LM"}[
        Decoder if isinstance(model, Decoder) else EncoderDecoder
    ]


def _in_file(model: Model, name: str) -> str:
    """What Hugging Face's class calls a module or a tensor of ours."""
    part = next((part for part in PARTS if name.endswith(part)), "")
    inner = name.removesuffix(part)
    if not part and name in model.state_dict():
        return model.name_in_file(name, model.config)
    return model.name_in_file(f"{inner}.weight", model.config).removesuffix(".weight") + part


@dataclass(frozen=True)
class Adapter:
    """An adapter's files, read and checked by themselves: tensors by the names they have there, without the prefix."""

    folder: Path
    config: Mapping[str, Any]
    own: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The spec of the model it is for; "" if that is not said."""
        near = self.own.get("base")
        if isinstance(near, str) and (self.folder / near).exists():
            return os.path.normpath(self.folder / near)
        said = self.config.get("base_model_name_or_path")
        return said if isinstance(said, str) else near if isinstance(near, str) else ""

    @property
    def scale(self) -> float:
        rank = self.config["r"]
        return self.config["lora_alpha"] / (rank**0.5 if self.config.get("use_rslora") else rank)

    def put_on(self, model: Model, weights: Callable[[], str], name: str) -> Model:
        """A copy of the model that shares its weights, with this adapter. `weights` gives the hash of the model's.

        Raises InputError if the adapter is another model's, or its tensors do not fit.
        """
        wanted = self.own.get("base_weights")
        if wanted and weights() != wanted:
            raise InputError(
                f"is for {self.base} (weights {wanted[:12]}), and {name} is another model (weights {weights()[:12]})",
                where=str(self.folder),
                then="name the model that it was made with",
            )
        model = self._grown(model)
        made, left = shared(model, frozen=True), self._ours(model)
        linear = linear_layers(model)
        for layer in [key.removesuffix(PARTS[0]) for key in left if key.endswith(PARTS[0])]:
            if layer not in linear:
                raise self._wrong(f"{layer} is no linear layer of {name}, or shares its weights with another")
            rank, dora = left[layer + PARTS[0]].shape[0], layer + PARTS[2] in left
            made.set_submodule(layer, adapted := Adapted(made.get_submodule(layer), rank, self.scale, dora))
            for part, weight in _parts(adapted).items():
                self._fill(weight, left.pop(layer + part, None), layer + part)
        places = dict(made.named_parameters())
        for key, tensor in left.items():
            if key not in places:
                raise self._wrong(f"tensor {key!r} is not known")
            module, _, last = key.rpartition(".")
            made.get_submodule(module).register_parameter(last, own := torch.nn.Parameter(torch.empty(tensor.shape)))
            if places[key].shape != tensor.shape:
                raise self._wrong(f"tensor {key!r} is {list(tensor.shape)}, and not {list(places[key].shape)}")
            self._fill(own, tensor, key)
        for key, weight in made.named_parameters():
            if weight.is_meta:
                raise self._wrong(f"tensor {key!r} is missing")
        return made.eval()

    def _fill(self, weight: Tensor, tensor: Tensor | None, name: str) -> None:
        if tensor is None:
            raise self._wrong(f"tensor {name!r} is missing")
        if tensor.shape != weight.shape:
            raise self._wrong(f"tensor {name!r} is {list(tensor.shape)}, and not {list(weight.shape)}")
        if not torch.isfinite(tensor).all():
            raise self._wrong(f"tensor {name!r} holds NaN or infinity")
        weight.data.copy_(tensor)

    def _wrong(self, what: str) -> InputError:
        return InputError(what, where=str(self.folder / WEIGHTS), then="take base and adapter from the same place")

    def _ours(self, model: Model) -> dict[str, Tensor]:
        """The tensors by our names."""
        found = {}
        for key, tensor in self.tensors.items():
            part = next((part for part in PARTS if key.endswith(part)), "")
            name = model.rename(f"{key.removesuffix(part)}.weight" if part else key, model.config)
            if name is not None:
                found[name.removesuffix(".weight") + part if part else name] = tensor
        return found

    def _grown(self, model: Model) -> Model:
        """The model with the head that the adapter was trained with; what is new is on the meta device."""
        config = self._wanted(model)
        if config == model.config:
            return model
        with torch.device("meta"):
            made = type(model)(config)
        old, state = model.state_dict(keep_vars=True), made.state_dict()
        fitting = {name: old[name] for name, new in state.items() if name in old and old[name].shape == new.shape}
        made.load_state_dict({**state, **fitting}, assign=True)
        made.tie()
        return made

    def _wanted(self, model: Model) -> Any:
        if isinstance(own := self.own.get("config"), Mapping):
            known = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}
            try:
                return replace(model.config, **known)
            except TypeError as error:
                raise InputError(f"its config does not fit ({error})", where=str(self.folder / OWN)) from error
        head = next((head for head, task in HEADS.items() if task == self.config.get("task_type")), None)
        if not isinstance(model, Encoder) or head is None or model.config.head == head:
            return model.config
        sizes = [len(tensor) for name, tensor in self.tensors.items() if name.endswith(LAST)]
        if not sizes:
            return model.config
        names = {str(i): f"LABEL_{i}" for i in range(sizes[0])}
        return replace(model.config, head=head, num_labels=sizes[0], id2label=names)


def read_adapter(folder: Path) -> Adapter:
    """Raises InputError for files that are missing, damaged, of another method than LoRA, or of a kind of it that
    computes something else.
    """
    config, where = read_json(folder / CONFIG), str(folder / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else None
        raise InputError(f"peft_type {found!r} is not known", where=where, then="use an adapter of type LORA")
    numbers = [config.get(key) for key in ("r", "lora_alpha")]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise InputError("r and lora_alpha are no numbers above 0", where=where, then="mend the file")
    refused = [key for key in OTHER_MATHS if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    if str(config.get("init_lora_weights", "")).lower().startswith(OTHER_STARTS):
        refused.append("init_lora_weights")
    if refused:
        raise InputError(
            f"{refused[0]} = {config[refused[0]]!r} is not implemented, and the answers would be wrong without it",
            where=where,
            then="merge it with peft, and use the whole model",
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"holds no {WEIGHTS}", where=str(folder), then="take it from where the config came from")
    tensors = {key.removeprefix(START): tensor for key, tensor in read_tensors(folder / WEIGHTS).items()}
    about = read_json(folder / OWN) if (folder / OWN).is_file() else {}
    own = about.get("adapter", {}) if isinstance(about, dict) else None
    if not isinstance(own, dict):
        raise InputError("does not say what the adapter is for", where=str(folder / OWN), then="remove it")
    return Adapter(folder, config, own, tensors, {key: value for key, value in about.items() if key != "adapter"})
