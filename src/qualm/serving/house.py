"""What one server has: its models, limits, keys, records and counts, and whether it is closing."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qualm.serving.audits import Audits
from qualm.serving.errors import Busy, Refusal
from qualm.serving.keys import Key, Keys
from qualm.serving.knowledge import Knowledge
from qualm.serving.metrics import Metrics
from qualm.serving.served import Models, Served
from qualm.serving.settings import Limits


@dataclass(eq=False)
class House:
    """One server. `crowded` says whether more connections are open than are allowed."""

    models: Models
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    records: Path | None = None
    library: Path | None = None  # where knowledge bases are kept; None: in a folder that goes with the server
    crowded: Callable[[], bool] = lambda: False
    draining: bool = False

    def __post_init__(self) -> None:
        self.metrics, self.audits = Metrics(self.models), Audits(self.records)
        self.knowledge = Knowledge(self.library)

    def start(self) -> None:
        for served in self.models.values():
            served.worker.start()

    async def stop(self) -> None:
        for served in self.models.values():
            await served.worker.stop()
        self.knowledge.close()

    def close(self) -> None:
        """Let nobody in any more; those inside may finish."""
        self.draining = True
        for served in self.models.values():
            served.worker.gate.closed = True

    def room(self) -> None:
        """Raises Busy if no model has room for another answer."""
        gates = [served.worker.gate for served in self.models.values()]
        for gate in gates:
            with contextlib.suppress(Busy):
                return gate.enter()
        return gates[0].enter()

    @property
    def inside(self) -> int:
        return sum(served.worker.gate.inside for served in self.models.values())

    def model(self, name: str, key: Key | None) -> Served:
        """Raises Refusal if there is no such model, or the key is not for it."""
        served = self.models.find(name)
        if key is not None and not key.may_ask(served.name):
            raise Refusal(403, f"this key is not for {served.name}", param="model", code="model_not_allowed")
        return served
