"""A model's directory: weights, config, tokenizer, generation_config.json and qualm.json."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qualm.files import write_json
from qualm.models.base import Causal, Model
from qualm.models.store import SCHEMA, save_model
from qualm.tokens.tokenizer import Tokens


def ends_of(model: Model, tokens: Tokens) -> frozenset[int]:
    """The ids after which nothing more is said: the tokenizer's files', and those the model's config names."""
    named = model.config.eos_token_id
    return tokens.eos_ids | frozenset(() if named is None else (named,) if isinstance(named, int) else named)


def write_folder(model: Model, tokens: Tokens, folder: Path, about: Mapping[str, Any]) -> None:
    """A directory that `qualm.load` and transformers read. qualm.json comes last, so one that has it is whole.

    `about` is its content besides the schema: `name`, `world`, `mends`, and `training`, what it was made from.
    """
    save_model(model, folder)
    tokens.save(folder)
    if isinstance(model, Causal):
        start = getattr(model.config, "decoder_start_token_id", None)
        ids = {"bos_token_id": tokens.bos_id, "pad_token_id": tokens.pad_id, "decoder_start_token_id": start}
        kept: dict[str, Any] = {name: i for name, i in ids.items() if i is not None}
        kept |= {"bad_words_ids": [[i] for i in model.never]} if model.never else {}
        write_json(folder / "generation_config.json", {**kept, "eos_token_id": _one(sorted(ends_of(model, tokens)))})
    write_json(folder / "qualm.json", {"schema": SCHEMA, "world": None, "mends": [], **about})


def _one(ids: Iterable[int]) -> int | list[int]:
    """A single id by itself, as most files have it."""
    found = list(ids)
    return found[0] if len(found) == 1 else found
