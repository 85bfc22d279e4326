"""Do a task with a model."""

from collections.abc import Sequence
from typing import Any

from qualm import registry
from qualm.config import build
from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


def do(task: Task | str, lm: LM, texts: Sequence[str], **settings: Any) -> list[Result]:
    """What the task makes of each text: `do("classify", lm, ["I like it"])`.

    A task given by its name is made with these settings. Raises UsageError for an unknown name or setting, Unsupported
    if the model cannot do what the task needs.
    """
    return (make(task, **settings) if isinstance(task, str) else task)(lm, texts)


def make(name: str, **settings: Any) -> Task:
    """A task by its name and settings. Raises UsageError naming what is wrong, with the nearest right word."""
    return build(registry.find("tasks", name), settings)
