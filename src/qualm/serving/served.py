"""The models of a server by their names, and what it says of each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qualm import __version__
from qualm.errors import UsageError
from qualm.lm.base import LM
from qualm.lm.local import Local
from qualm.lm.replay import Replay
from qualm.lm.wrapped import Wrapped
from qualm.serving.errors import Refusal
from qualm.serving.settings import Limits
from qualm.serving.worker import Worker
from qualm.tokens.settings import NAMES
from qualm.tokens.tokenizer import Tokens

SAID = ("family", "parameters", "bytes", "weights", "tokenizer", "template", "scoring")  # of a card


def innermost(lm: LM) -> LM:
    """The model that all mends stand around."""
    while isinstance(lm, Wrapped | Replay):
        lm = lm.inner
    return lm


@dataclass
class Served:
    """One model, and the worker that asks it."""

    name: str
    lm: LM
    worker: Worker
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def local(self) -> Local | None:
        """The weights and tokenizer inside; None for what is served elsewhere."""
        inner = innermost(self.lm)
        return inner if isinstance(inner, Local) else None

    @property
    def tokens(self) -> Tokens:
        """Raises Refusal where they are not to be had."""
        if self.local is None:
            raise Refusal(400, f"the tokenizer of {self.name} is not here", param="model", code="unsupported")
        return self.local.tokens

    @property
    def fingerprint(self) -> str:
        """Changes when the answers may: of the card and of this program."""
        return f"qualm-{__version__}-{self.lm.card.hash[:12]}"

    def needs(self, ability: str, what: str) -> None:
        if ability not in self.lm.can:
            raise Refusal(400, f"{self.name} cannot {what}", param="model", code="unsupported")

    def entry(self) -> dict[str, Any]:
        """Of /v1/models: OpenAI's fields, vLLM's, and what `qualm.lm.endpoint.Endpoint` asks for."""
        card, local = self.lm.card, self.local
        said: dict[str, Any] = {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "qualm",
            "fingerprint": self.fingerprint,
            "meta": {"n_params": card.parameters, "size": card.bytes},
            "qualm": {
                "version": __version__,
                "can": sorted(self.lm.can - {"weights"}),
                "mends": list(card.mends),
                **{name: getattr(card, name) for name in SAID},
            },
        }
        if card.world is not None:
            said["world"] = dict(card.world)
        if local is not None:
            said |= {"max_model_len": local.context, "chat_template": local.tokens.template}
            said |= {name: getattr(local.tokens, name[:3]) for name in NAMES if getattr(local.tokens, name[:3])}
            if local.path is not None:
                said["root"] = local.path.name
        return said


class Models(Mapping[str, Served]):
    """By name, in the order they were given; the first one is meant where a request names none."""

    def __init__(self, lms: Sequence[LM] | Mapping[str, LM], limits: Limits = Limits()):
        named = list(lms.items()) if isinstance(lms, Mapping) else [(lm.name, lm) for lm in lms]
        self._served: dict[str, Served] = {}
        for name, lm in named:
            if name in self._served:
                raise UsageError(f"two models are named {name!r}", then="give one of them another name: NAME=MODEL")
            self._served[name] = Served(name, lm, Worker(lm, limits))
        if not self._served:
            raise UsageError("no model to serve", then="name one: qualm serve MODEL")

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Any:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def find(self, name: str) -> Served:
        """The model of that name, the only one for none. Raises Refusal with the names there are."""
        if not name and len(self) == 1:
            return next(iter(self._served.values()))
        if name not in self._served:
            known = ", ".join(list(self._served)[:8])
            raise Refusal(404, f"no model {name!r} here; there are: {known}", param="model", code="model_not_found")
        return self._served[name]
