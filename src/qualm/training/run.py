"""From a folder of text to a folder with a model: read, learn a tokenizer, split, pack, train, save.

Everything on the way is kept in OUTPUT/run, so that the same call again goes on where the last one ended.
"""

import platform
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qualm.config import to_dict
from qualm.corpus import Document, Packed, load, pack, read, split
from qualm.corpus.packing import documents_hash
from qualm.corpus.packs import TOKENIZER, is_packed, sides_of
from qualm.errors import InputError, UsageError
from qualm.files import read_json, write_json
from qualm.folder import write_folder
from qualm.models.base import Model
from qualm.models.store import CONFIG, family_of, load_model, parameters
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from qualm.training.checkpoint import claimed
from qualm.training.heads import with_config, with_positions
from qualm.training.loop import Hooks, Result, fit
from qualm.training.objectives import objective_of
from qualm.training.page import NAME, About, Page
from qualm.training.parallel import Ranks
from qualm.training.recipe import Recipe
from qualm.training.sharded import check_processes
from qualm.training.size import check_floats, check_length, config_of, depth_of, made, vocab_of, with_keys

ENOUGH, OFTEN = 20, 4  # tokens a parameter (Hoffmann et al. 2022); passes over the text (Muennighoff et al. 2023)

Texts = tuple[list[Document], list[Document]]  # to learn from, held out


@dataclass(frozen=True)
class Trained:
    """The folder of the model that was made, and how."""

    folder: Path
    parameters: int
    unit: str  # of what validation read
    result: Result


def train(data: Path | str, output: Path | str, recipe: Recipe = Recipe(), hooks: Hooks = Hooks()) -> Trained:
    """Make a model of the text in `data`, or of a packed corpus; `output` becomes a model directory.

    `hooks.validate` and `hooks.write` are set here. Called again it goes on with what lies in `output`.
    Raises InputError for text that cannot be used, UsageError for a family that does not learn from plain text or not
    by this objective, and all that `fit` raises.
    """
    recipe = _started(recipe)
    objective_of(recipe)
    data, output = Path(data), Path(output)
    work = output / "run"
    if (output / "config.json").exists() and not work.exists():
        raise InputError("there is a model already", where=str(output), then="name another folder")
    check_processes(recipe.train)
    texts = None if is_packed(data) else _documents(data, recipe)
    with claimed(work) if Ranks().first else nullcontext():
        return _trained(data, texts, output, recipe, hooks)


def _trained(data: Path, texts: Texts | None, output: Path, recipe: Recipe, hooks: Hooks) -> Trained:
    kind, work, ranks = objective_of(recipe), output / "run", Ranks()
    with ranks.first_alone():
        tokens, packed, held = _packed(texts, recipe, work) if texts else _shards(data, recipe, work)
    held_out = len(held.ends) if held else 0
    hooks.on_event(f"{data}: {len(packed.ends)} documents to learn from, {held_out} held out")
    held = held.head(recipe.validate) if held else None
    objective = kind(recipe, tokens)
    model = _model(recipe, tokens)
    check_length(recipe.length, model)
    rows = objective.rows(packed)
    recipe = _duration(recipe, parameters(model), len(rows))
    hooks.on_event(
        f"{recipe.family} of {parameters(model):,} parameters, {tokens.vocab_size} tokens; "
        f"{recipe.train.total(len(rows))} steps over {packed.tokens:,} tokens of text"
    )
    if ranks.first:
        write_json(work / "recipe.json", {"data": str(data), **to_dict(recipe)})
    about = _about(data, recipe, packed, held)

    def validate(trained: nn.Module) -> float:
        return objective.read(trained, held) if held else 0.0

    def write(trained: nn.Module, folder: Path) -> None:
        if isinstance(trained, Model):
            write_folder(trained, tokens, folder, {**about, "name": output.name})

    page = Page(work, output / NAME, About(output.name, kind.unit, _facts(recipe, model, packed, held)))
    hooks = replace(hooks, validate=validate if held else None, write=write, on_step=page.watching(hooks.on_step))
    hooks = replace(hooks, flops=objective.flops(model.config), given=_given(recipe, held))
    with page.kept() if ranks.first else nullcontext():
        result = fit(model, rows, objective.loss(), recipe.train, work, hooks)
    best = {"validation": result.best, "unit": kind.unit}
    about["training"] |= {"steps": result.steps, "best_step": result.best_step, **best}
    if ranks.first:
        write(model, output)
    ranks.wait()
    return Trained(output, parameters(model), kind.unit, result)


def _started(recipe: Recipe) -> Recipe:
    """With the family of the model that it goes on from."""
    if recipe.start is None:
        return recipe
    where = str(recipe.start / CONFIG)
    raw = read_json(where)
    family = family_of(raw.get("model_type") if isinstance(raw, dict) else None, where)
    if recipe.family not in (family, Recipe().family):
        raise UsageError(f"{recipe.start} is of the family {family}", where="family", then="leave it out")
    return replace(recipe, family=family)


def _documents(data: Path, recipe: Recipe) -> Texts:
    if isinstance(recipe.held_out, Path):
        return list(read(data)), list(read(recipe.held_out))
    return split(read(data), recipe.held_out)


def _packed(texts: Texts, recipe: Recipe, work: Path) -> tuple[Tokens, Packed, Packed | None]:
    """The tokenizer, and the documents to learn from and to validate on, packed in the folder of the run."""
    documents, held_out = texts
    tokens = _tokens(documents, recipe, work)
    held = pack(held_out, tokens, work / "held_out") if held_out else None
    return tokens, pack(documents, tokens, work / "text"), held


def _shards(corpus: Path, recipe: Recipe, work: Path) -> tuple[Tokens, Packed, Packed | None]:
    """The same of a corpus that was built and packed: its shards are read where they lie."""
    for setting in ("tokenizer", "vocab"):
        if getattr(recipe, setting):
            raise UsageError(f"this corpus has a tokenizer of its own, so no {setting}", where=str(corpus))
    tokens, (train, held_out) = Tokens.load(corpus / TOKENIZER), sides_of(corpus) or (corpus, None)
    if isinstance(recipe.held_out, Path):
        return tokens, load(train), pack(read(recipe.held_out), tokens, work / "held_out")
    return tokens, load(train), load(held_out) if held_out else None


def _tokens(documents: list[Document], recipe: Recipe, work: Path) -> Tokens:
    """The tokenizer named, or one learnt from the documents, kept for the next time."""
    if known := recipe.start or recipe.tokenizer or recipe.teacher:
        return Tokens.load(known)
    folder, made = work / "tokenizer", work / "tokenizer" / "made.json"
    vocab = recipe.vocab or vocab_of(depth_of(recipe.size, recipe.family, length=recipe.length))
    wanted = {"documents": documents_hash(documents), "vocab": vocab}
    if not made.exists() or read_json(made) != wanted:
        texts = (text for document in documents for text in document.contents)
        kind = objective_of(recipe)
        train_bpe(texts, vocab, kind.special, kind.frame, kind.mask).save(folder)
        write_json(made, wanted)
    return Tokens.load(folder)


def _model(recipe: Recipe, tokens: Tokens) -> Model:
    if recipe.start:
        known = load_model(recipe.start)
        check_floats(known)
        model = with_positions(objective_of(recipe).prepared(known, recipe.train.seed), recipe.length)
        return with_config(model, with_keys(model.config, {}, recipe.dropout), recipe.train.seed)
    special = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id, "pad_token_id": tokens.pad_id}
    vocab = recipe.vocab or (tokens.vocab_size if recipe.tokenizer or recipe.teacher else 0)
    depth = depth_of(recipe.size, recipe.family, vocab, recipe.length)
    config = config_of(recipe.family, depth, tokens.vocab_size, recipe.length, **special)
    return made(recipe.family, with_keys(config, recipe.keys, recipe.dropout), recipe.train.seed)


def _duration(recipe: Recipe, count: int, rows: int) -> Recipe:
    """With the usual number of steps, if it says none."""
    s = recipe.train
    if s.steps is not None or s.epochs is not None:
        return recipe
    tokens = min(ENOUGH * count, OFTEN * rows * recipe.length)
    return replace(recipe, train=replace(s, steps=max(1, tokens // (s.batch * s.accumulate * recipe.length))))


def _given(recipe: Recipe, held: Packed | None) -> dict[str, dict[str, Any]]:
    """What decides a run beside its settings, rows and model."""
    objective = {"name": objective_of(recipe).__name__, "smoothing": recipe.smoothing}
    return {"objective": objective, "held_out": dict(held.identity) if held else {}}


def _facts(recipe: Recipe, model: Model, packed: Packed, held: Packed | None) -> dict[tuple[str, str], dict[str, Any]]:
    """What the page of the run says besides its curves."""
    making, training = to_dict(recipe), vars(recipe.train)
    making.pop("train")
    shape = {"parameters": f"{parameters(model):,}", "tokens of the tokenizer": f"{model.config.vocab_size:,}"}
    text = {"tokens": f"{packed.tokens:,}", "bytes": f"{packed.bytes:,}", **packed.identity}
    text |= {f"held out, {name}": value for name, value in held.identity.items()} if held else {}
    return {
        ("The model", "模型"): {**making, **shape},
        ("Training", "训练"): training,
        ("The data", "数据"): text,
        ("The machine", "机器"): {
            "torch": torch.__version__,
            "threads": recipe.train.threads or torch.get_num_threads(),
        },
    }


def _about(data: Path, recipe: Recipe, packed: Packed, held: Packed | None) -> dict[str, Any]:
    """The content of qualm.json: what the model was made from, with what."""
    world = read_json(data / "world.json") if (data / "world.json").is_file() else None
    training: dict[str, Any] = {
        "recipe": to_dict(recipe),
        "data": dict(packed.identity),
        "held_out": dict(held.identity) if held else None,
        "threads": recipe.train.threads or torch.get_num_threads(),
        "versions": {"qualm": version("qualm-lm"), "torch": torch.__version__, "python": platform.python_version()},
    }
    return {"world": world, "training": training}
