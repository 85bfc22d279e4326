"""Put mends on models, and keep mended models: `load`, `mend`, `save` and `export`.

A mended model is a directory with a mends.json: the base model (a reference and its hash, or its files beside it), and
the chain of mends around it that rebuilds it. Mends of the weights are in the weights; they stand in the file for the
record, under "baked", and are not applied again.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qualm import registry
from qualm.cases import Case
from qualm.config import build, to_dict
from qualm.errors import InputError, QualmError, Unsupported, UsageError
from qualm.files import read_json, write_json
from qualm.lm.base import LM
from qualm.lm.endpoint import Endpoint
from qualm.lm.export import write_out
from qualm.lm.fake import Fake
from qualm.lm.load import HUB, load_base
from qualm.lm.local import Local, read_about
from qualm.lm.replay import Replay
from qualm.lm.wrapped import Wrapped
from qualm.mends.base import Mend, Mended

FILE, SCHEMA = "mends.json", "qualm.mends/1"
HERE = "."  # the base model's files lie beside mends.json


def load(spec: str | Path | LM, *, cache: Path | None = None) -> LM:
    """A model by its spec: a directory, mended or not, or whatever else `qualm.lm.load` knows; a model is itself.

    `cache` is where fetched packages are kept. Raises InputError if the base model of a mended one is missing or is no
    longer the one that was mended.
    """
    if isinstance(spec, LM):
        return spec
    folder = Path(spec)
    if not (folder / FILE).is_file():
        return load_base(str(spec), cache=cache)
    file = _read(folder)
    lm = load_base(_base(str(file["base"]), folder), cache=cache)
    if lm.card.hash != file["base_hash"]:
        raise InputError(
            f"the base model {file['base']} is not the one that was mended (its hash differs)",
            where=str(folder / FILE),
            then="put the old one back, or mend the new one",
        )
    for number, entry in enumerate(file["mends"], 1):
        try:
            lm = apply(lm, make(entry["name"], entry["settings"]).unpack(_place(folder, number, entry["name"])))
        except UsageError as error:
            raise InputError(f"mend {number}: {error.what}", where=str(folder / FILE), then=error.then) from error
    return lm


def make(name: str, settings: Mapping[str, Any]) -> Mend:
    """A mend by its name and settings. Raises UsageError naming what is wrong, with the nearest right word."""
    return build(registry.find("mends", name), settings)


def apply(lm: LM, mend: Mend) -> LM:
    """The mended model. Raises Unsupported if the mend needs what this model cannot do."""
    name, lacking = type(mend).__name__.lower(), sorted(mend.needs - lm.can)
    if lacking:
        raise Unsupported(
            f"the mend {name} needs {' and '.join(lacking)}, which {lm.name} does not give",
            then="mend the weights first, wrap the model then" if lacking == ["weights"] else "",
        )
    mended = mend(lm)
    if mended.card.hash == lm.card.hash:
        raise QualmError(f"the mend {name} changed nothing in {lm.name}", then="look at its settings")
    return mended


def mend(
    model: str | Path | LM,
    with_: str | Mend,
    *,
    cases: Sequence[Case] = (),
    output: str | Path | None = None,
    **settings: Any,
) -> LM:
    """A model mended: by a mend, or by the name of one with its settings.

    A mend that learns is fitted on `cases`, if there are any. With `output`, the mended model is also saved there.
    """
    if isinstance(with_, Mend) and settings:
        raise UsageError(f"settings {', '.join(settings)} beside a finished mend", then="put them into the mend")
    chosen = with_ if isinstance(with_, Mend) else make(with_, settings)
    lm = load(model)
    mended = apply(lm, chosen.fit(lm, cases) if cases else chosen)
    if output is not None:
        save(mended, output)
    return mended


def export(model: str | Path | LM, output: str | Path, *, dtype: str = "float32") -> Local:
    """Write any model whose weights are here as a folder in the Hugging Face layout, its weights in `dtype`.

    Raises Unsupported for what is not weights and a tokenizer: an endpoint, a fake, a mend around a model.
    """
    return write_out(load(model), output, dtype)


def save(lm: LM, folder: str | Path) -> None:
    """Write a mended model so that `load` gives the same one back, and a plain one with its files.

    A base whose weights no mend changed, or that is served elsewhere, is kept as a reference; the rest is written.
    Raises UsageError for what cannot be rebuilt: a wrapper that is no mend.
    """
    folder, chain, base = Path(folder), [], lm
    while isinstance(base, Wrapped | Replay):
        if isinstance(base, Mended) and base.mend is not None:
            chain.append(base.mend)
        elif isinstance(base, Wrapped):
            raise UsageError(
                f"{base.name} has a wrapper that is no mend, and cannot be saved", then="save what is inside"
            )
        base = base.inner
    reference = _reference(base, folder)
    if reference == HERE:
        assert isinstance(base, Local)
        base.save(folder)
    entries = []
    for number, each in enumerate(reversed(chain), 1):
        name = _name(each)
        entries.append({"name": name, "settings": to_dict(each.pack(_place(folder, number, name)))})
    baked = list(base.mends) if isinstance(base, Local) else []
    write_json(
        folder / FILE,
        {"schema": SCHEMA, "base": reference, "base_hash": base.card.hash, "baked": baked, "mends": entries},
    )


def _reference(base: LM, folder: Path) -> str:
    """How mends.json names the base model: HERE if its files are to be written beside it."""
    match base:
        case Endpoint():
            return f"{base.url}#{base.name}"
        case Fake():
            return base.name
        case Local(path=Path() as path) if path.exists() and read_about(path).get("mends", []) == list(base.mends):
            if path.resolve() == folder.resolve():
                raise UsageError("is the base model's own folder", where=str(folder), then="name another folder")
            fetched = ":" in base.name or HUB.fullmatch(base.name)  # named by its spec: the path is a cache's
            relative = Path(os.path.relpath(path, folder)).as_posix()
            return base.name if fetched else relative if relative.startswith("..") else f"./{relative}"
        case Local():
            return HERE
    raise UsageError(f"{base.name} has no files and no address to save", then="save a model that has")


def _base(reference: str, folder: Path) -> str:
    """The spec of the base model that mends.json names."""
    if ":" in reference:
        return reference
    path = folder / reference
    if not path.exists() and HUB.fullmatch(reference):
        return reference
    if not path.exists():
        raise InputError(
            f"its base model {reference} is not there", where=str(folder / FILE), then="put it back at that place"
        )
    return os.path.normpath(path)


def _name(mend: Mend) -> str:
    """The name under which the registry finds a mend's class."""
    return next(n for n in registry.names("mends") if registry.find("mends", n) is type(mend))


def _place(folder: Path, number: int, name: str) -> Path:
    """Where the files of one mend of the chain lie."""
    return folder / f"mend-{number}-{name}"


def _read(folder: Path) -> dict[str, Any]:
    where = str(folder / FILE)
    file = read_json(folder / FILE)
    if not isinstance(file, dict) or file.get("schema") != SCHEMA:
        raise InputError(f"is not a {SCHEMA} file", where=where, then="mend the base model again")
    entries = file.get("mends")
    whole = isinstance(file.get("base"), str) and isinstance(file.get("base_hash"), str) and isinstance(entries, list)
    if not whole or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) and isinstance(e.get("settings"), dict) for e in entries
    ):
        raise InputError("lacks its base, its hash or its mends", where=where, then="mend the base model again")
    return file
