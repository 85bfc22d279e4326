"""One dial, the rest follows: from "tiny" or a number of parameters to a model of any family.

What the dial turns is the depth: every family's `Config.sized` says what follows from it.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import torch

from qualm import registry
from qualm.config import to_dict
from qualm.errors import InputError, UsageError
from qualm.models.base import DROPOUTS, Config, Model

DEPTHS = {"tiny": 4, "small": 8, "medium": 12, "large": 16}
DEEPEST = 64


def vocab_of(depth: int) -> int:
    """A vocabulary that takes about as much as one or two layers do."""
    return 512 * depth


def config_of(family: str, depth: int, vocab: int = 0, length: int = 128, **ids: Any) -> Config:
    """The config of a family at this depth, for texts of `length` tokens.

    `vocab` 0 stands for as many tokens as suit the depth; `ids` are keys such as eos_token_id. Raises UsageError for
    a family that there is not.
    """
    kind: type[Model] = registry.find("models", family)
    return kind.config_class.sized(depth, vocab or vocab_of(depth), length, **ids)


def depth_of(size: str | int, family: str = "llama", vocab: int = 0, length: int = 128) -> int:
    """The depth that a size names: of a Llama, "tiny" has 1.3 M parameters, "small" 9.4 M, "medium" 30.7 M, "large"
    71.3 M.

    A number asks for about so many parameters: the depth is taken at which the family's count is nearest. Raises
    UsageError for another name, or a number below 1.
    """
    if isinstance(size, str):
        if size not in DEPTHS:
            near = get_close_matches(size, DEPTHS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"say {', '.join(DEPTHS)} or a number of parameters"
            raise UsageError(f"no size is named {size!r}", then=hint)
        return DEPTHS[size]
    if size < 1:
        raise UsageError(f"a model of {size} parameters cannot be", then=f"say {', '.join(DEPTHS)} or 1e6 and more")
    counts = {depth: config_of(family, depth, vocab, length).parameters for depth in range(1, DEEPEST + 1)}
    return min(counts, key=lambda depth: abs(counts[depth] - size))


def with_keys(config: Config, keys: Mapping[str, str], dropout: float = 0.0) -> Config:
    """The config with other values of these keys, in JSON or as plain words, and of all its dropouts.

    Raises InputError for a key that the family has not, a value that it cannot take, or one that changes nothing.
    """
    if not keys and not dropout:
        return config
    shares = {f.name: dropout for f in fields(config) if f.name in DROPOUTS} if dropout else {}
    said, known = {key: _value(text) for key, text in keys.items()}, to_dict(config)
    made = type(config).from_hf({**config.to_hf(), **shares, **said}, "keys")
    for key, value in said.items():
        if key in known and to_dict(made)[key] == known[key] != value:
            raise InputError(
                f"key {key!r} does nothing beside the config's other keys", where="keys", then="name those"
            )
    return made


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_length(length: int, model: Model) -> None:
    """Raises UsageError if rows of `length` tokens are longer than the model has positions."""
    if length > model.config.context:
        raise UsageError(
            f"{length} tokens are more than the {model.config.context} positions of the model",
            where="length",
            then=f"say --length {model.config.context} or less",
        )


def check_floats(model: Model) -> None:
    """Raises UsageError if weights are in 8 bits, which take no step."""
    if any(tensor.dtype == torch.int8 for tensor in model.state_dict().values()):
        raise UsageError(
            f"this {model.config.model_type} model's weights are in 8 bits, and do not learn",
            then="name the model that it was made from",
        )


def build(family: str, depth: int, vocab: int = 0, length: int = 128, seed: int = 0, **ids: Any) -> Model:
    """The model that `config_of` describes, with the random weights of this seed."""
    return made(family, config_of(family, depth, vocab, length, **ids), seed)


def made(family: str, config: Config, seed: int) -> Model:
    """The model of a config, with the random weights of this seed."""
    kind: type[Model] = registry.find("models", family)
    model = kind(config)
    model.init_weights(seed)
    return model
