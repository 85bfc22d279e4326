"""The flags of a verb that can train on several processes."""

import os
from dataclasses import dataclass, field
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from qualm.cli.common import Common

SEVERAL = Group("Several processes", sort_key=5)


@Parameter(name="*", group=SEVERAL)
@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many processes train together on this machine. A verb that is to be begun as several returns this."""

    nproc: Annotated[int, Parameter(validator=Number(gte=1), help="Processes that share the rows of each batch.")] = 1
    restarts: Annotated[
        int, Parameter(validator=Number(gte=0), help="How often to go on by itself after a process was killed.")
    ] = 0

    @property
    def to_start(self) -> bool:
        """Whether they are still to be started: this is not one of them, nor one of torchrun's."""
        return (self.nproc > 1 or self.restarts > 0) and "RANK" not in os.environ


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """How a verb runs: the flags of every verb, and those for several processes."""

    processes: Processes = Processes()
    common: Common = field(default_factory=Common)
