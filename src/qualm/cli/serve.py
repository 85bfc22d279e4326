"""`qualm serve`: an OpenAI-compatible server over any models."""

import logging
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Group, Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import key_for, load
from qualm.cli.openfiles import allow_many
from qualm.errors import UsageError

if TYPE_CHECKING:
    from qualm.lm.base import LM
    from qualm.serving.keys import Keys

WHAT, WHO, BOUNDS = Group("What is served", sort_key=2), Group("Who may ask", sort_key=3), Group("Limits", sort_key=4)


@Parameter(name="*", group=WHAT)
@dataclass(frozen=True, kw_only=True)
class What:
    """What is served beside the models.

    Attributes:
        mend: Serve the first model mended too: the name of a mend and its settings ("retrieval docs=facts k=2").
            May be given several times: each is put around the one before.
        adapters: Serve the first model with each adapter of this folder too, under the names of their folders.
        engine: The address of another server (http://host/v1): the models are then names of its models.
        audits: The folder whose records the page shows.
        knowledge: The folder where knowledge bases are kept; by default they go with the server.
    """

    mend: tuple[str, ...] = ()
    adapters: Path | None = None
    engine: str | None = None
    audits: Path | None = None
    knowledge: Path | None = None


@Parameter(name="*", group=WHO)
@dataclass(frozen=True, kw_only=True)
class Who:
    """Who may ask.

    Attributes:
        host: The address to listen at. One that strangers reach needs a key.
        port: The port to listen at; 0 for any free one.
        api_key: The key that clients must give.
        keys: A file with the hashes of the keys that clients may give.
        new_key: Make a key of this name, add its hash to the file, print it once, and leave.
        for_model: A model that the new key is for; all if none is named. May be given several times.
        per_minute: Requests a minute that --api-key or the new key is good for; 0 for any number.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    keys: Path | None = None
    new_key: str | None = None
    for_model: tuple[str, ...] = ()
    per_minute: int = 0


@Parameter(name="*", group=BOUNDS)
@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the server allows.

    Attributes:
        rows: Requests that a model answers at once.
        slots: Tokens, read and to be written, that those may come to.
        queue: Requests of a model that may wait beside those; a further one is answered 429.
        queue_seconds: After which a request that still waits is answered 503.
        answer_seconds: After which an answer is ended, as by its length.
        drain_seconds: After SIGTERM, in which the answers under way may still be finished.
    """

    rows: int = 16
    slots: int = 16384
    queue: int = 64
    queue_seconds: float = 60.0
    answer_seconds: float = 600.0
    drain_seconds: float = 30.0


def serve(
    *models: str, what: What = What(), who: Who = Who(), bounds: Bounds = Bounds(), common: Common = Common()
) -> None:
    """Serve models to OpenAI's clients, until Ctrl-C or SIGTERM.

    Args:
        models: Model folders, .gguf files, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME; NAME=MODEL serves
            one under another name.
    """
    if who.new_key is not None:
        make_key(who, common)
        return
    if not models:
        raise UsageError("no model to serve", then="name one: qualm serve MODEL")
    keys = keys_of(who)
    rooms.serving_settings.check_address(who.host, who.port, bool(keys))
    limits = rooms.serving_settings.Limits(**asdict(bounds))
    if what.audits is not None and not what.audits.is_dir():
        raise UsageError("no such folder", where="--audits")
    level = logging.WARNING if common.quiet else logging.INFO
    rooms.serving_logs.to(logging.StreamHandler(sys.stderr), level)
    allow_many(limits.connections)
    found = list(named(models, what, common))
    lms = dict(found)
    if len(lms) < len(found):
        raise UsageError("two models are named alike", then="give one of them another name: NAME=MODEL")
    house = rooms.serving_house.House(rooms.served.Models(lms, limits), limits, keys, what.audits, what.knowledge)
    listening = rooms.serving_run.bound(who.host, who.port)
    address = f"http://{who.host}:{listening.getsockname()[1]}"
    common.remark(f"serving {', '.join(lms)} at {address}/v1 (Ctrl-C ends it)")
    with listening:
        rooms.serving_run.run(house, listening)


def named(models: tuple[str, ...], what: What, common: Common) -> Iterator[tuple[str, "LM"]]:
    """The models by the names they are served under: the given ones, then the first one mended and adapted."""
    first: LM | None = None
    for given in models:
        name, sign, spec = given.partition("=")
        plain = not sign or "/" in name or ":" in name
        lm = load_one(given if plain else spec, what, common)
        first = first or lm
        yield lm.name if plain else name, lm
    assert first is not None
    lm = first
    for text in what.mend:
        lm = mended(lm, text)
        yield lm.name, lm
    if what.adapters is not None:
        yield from adapted(first, what.adapters)


def load_one(spec: str, what: What, common: Common) -> "LM":
    if what.engine is None:
        return load(spec, common)
    return rooms.endpoint.Endpoint(what.engine, spec, key=key_for(what.engine))


def mended(lm: "LM", text: str) -> "LM":
    """The model with a mend around it, told as "NAME key=value ..."."""
    name, *words = shlex.split(text) or [""]
    settings = {key.replace("-", "_"): value for key, _, value in (word.partition("=") for word in words)}
    return rooms.apply.apply(lm, rooms.apply.make(name, settings))


def adapted(lm: "LM", folder: Path) -> Iterator[tuple[str, "LM"]]:
    """The model with each adapter in a folder; the weights are shared."""
    if not folder.is_dir():
        raise UsageError("no such folder", where="--adapters")
    if not isinstance(lm, rooms.local.Local):
        raise UsageError(f"{lm.name} has no weights here that an adapter could stand on", where="--adapters")
    found = [path for path in sorted(folder.iterdir()) if rooms.adapter_files.is_adapter(path)]
    if not found:
        raise UsageError("holds no folder with an adapter", where=str(folder), then="make one: qualm tune --lora 8")
    for path in found:
        yield path.name, lm.adapted(path)


def keys_of(who: Who) -> "Keys":
    """The keys that clients may give. Raises UsageError where both ways are used."""
    if who.api_key is not None and who.keys is not None:
        raise UsageError("give --api-key or --keys, not both", then="add it to the file: --new-key NAME")
    if who.api_key is not None:
        return rooms.serving_keys.Keys([rooms.serving_keys.given(who.api_key, who.per_minute)])
    return rooms.serving_keys.Keys.read(who.keys) if who.keys is not None else rooms.serving_keys.Keys()


def make_key(who: Who, common: Common) -> None:
    """Make a key and print it."""
    if who.keys is None:
        raise UsageError("needs the file that its hash is kept in", where="--new-key", then="add --keys FILE")
    key = rooms.serving_keys.add(who.keys, who.new_key or "", who.for_model, who.per_minute)
    common.result({"schema": "qualm.key/1", "name": who.new_key, "key": key}, key)
    common.remark("this key is shown once; only its hash is kept")
