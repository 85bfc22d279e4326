"""A model whose weights are here: what is the same for all kinds of it."""

from abc import ABC
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from qualm.errors import InputError
from qualm.files import read_json
from qualm.folder import ends_of, write_folder
from qualm.lm.base import LIKELIHOOD, LM, Card
from qualm.models._adapter_files import read_adapter
from qualm.models._adapters import merged
from qualm.models.base import Model
from qualm.models.store import SCHEMA, bytes_of, parameters, weights_hash
from qualm.tokens.tokenizer import Tokens


class Local(LM, ABC):
    """A network and its tokenizer.

    `about` is what its qualm.json says: `world` holds the settings of the planted world it was trained on, `mends` the
    reprs of the mends in its weights, `training` what it was made from. The weights must not change while it is in
    use: `replace` gives a new one.
    """

    of: ClassVar[type[Model]]  # the kind of network
    scoring: ClassVar[str] = LIKELIHOOD  # what its scores are

    def __init__(
        self,
        model: Any,
        tokens: Tokens,
        *,
        name: str = "",
        path: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ):
        self.model, self.tokens, self.path = model.eval(), tokens, path
        self.name = name or (path.name if path else model.config.model_type)
        self.about = dict(about or {})
        self.mends: tuple[str, ...] = tuple(self.about.get("mends", ()))

    @property
    def world(self) -> Mapping[str, Any] | None:
        return self.about.get("world")

    @property
    def source(self) -> Mapping[str, Any] | None:
        """Of imported weights: where they came from, and what was repaired."""
        return self.about.get("source")

    @classmethod
    def at_best(cls, family: type[Model]) -> frozenset[str]:
        """What the models of a family can do, each with the head for it."""
        return cls.can

    @cached_property
    def card(self) -> Card:  # type: ignore[override]
        return Card(
            family=self.model.config.model_type,
            parameters=parameters(self.model),
            bytes=bytes_of(self.model),
            weights=weights_hash(self.model),
            tokenizer=self.tokens.hash,
            template=self.tokens.template_hash,
            world=self.world,
            mends=self.mends,
            scoring=self.scoring if "score" in self.can else "",
        )

    @cached_property
    def ends(self) -> frozenset[int]:
        return ends_of(self.model, self.tokens)

    @property
    def context(self) -> int:
        """The most tokens the model can look at."""
        return self.model.config.context

    def replace(self, model: Model, by: str = "") -> Self:
        """The same with other weights; `by` is the repr of the mend that made them."""
        name = f"{self.name}+{by.split('(')[0].lower()}" if by else self.name
        about = {**self.about, "mends": [*self.mends, *([by] if by else [])]}
        return type(self)(model, self.tokens, name=name, path=self.path, about=about)

    def adapted(self, folder: Path | str) -> Self:
        """The same with the adapter in `folder`: the weights are shared, so that one model can answer by many adapters.

        Raises InputError if the adapter was made for another model, or cannot be used.
        """
        adapter = read_adapter(Path(folder))
        model = adapter.put_on(merged(self.model), lambda: self.card.weights, self.name)
        about = {**self.about, **adapter.about, "world": self.world, "mends": list(self.mends)}
        return type(self)(model, self.tokens, name=adapter.folder.name, path=adapter.folder, about=about)

    def save(self, path: Path | str) -> None:
        """Weights, config, tokenizer, generation_config.json and qualm.json: a directory that `load` and
        transformers read. qualm.json comes last, so a directory that has one is whole. An adapter is put into the
        weights.
        """
        write_folder(merged(self.model), self.tokens, Path(path), {**self.about, "name": self.name})


def read_about(folder: Path) -> dict[str, Any]:
    """The content of qualm.json: {} if there is none. Raises InputError if it is not what `Local.save` writes."""
    file = folder / "qualm.json"
    about = read_json(file) if file.is_file() else {}
    if not isinstance(about, dict) or (about and about.get("schema") != SCHEMA):
        raise InputError(f"is not a {SCHEMA} file", where=str(file), then="mend it or remove it")
    objects = all(isinstance(about.get(key), dict | None) for key in ("world", "source"))
    if not objects or not is_words(about.get("mends", [])):
        raise InputError("its world or source is no object, or its mends are no list of words", where=str(file))
    return about


def is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
