"""`qualm do`: a task with a model."""

import sys
from typing import Annotated

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.config import to_dict


def do(
    task: str,
    model: str,
    /,
    *texts: Annotated[str, Parameter(allow_leading_hyphen=True)],
    common: Common = Common(),
    **settings: Annotated[str, Parameter(help="Any setting of the task: --top 3, --query TEXT.")],
) -> None:
    """Classify, tag, embed, rank or translate texts, fill in words, or find answers. One line a text.

    Args:
        task: The name of a task: see qualm list tasks.
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        texts: What to work on; - (or nothing) reads a text a line from stdin.
    """
    made = rooms.tasks.make(task, **{key.replace("-", "_"): value for key, value in settings.items()})
    given = [text for word in texts or ("-",) for text in (lines() if word == "-" else (word,))]
    lm = load(model, common)
    results = rooms.tasks.do(made, lm, given)
    document = {"schema": "qualm.do/1", "task": task, "model": lm.name, "settings": to_dict(made)}
    common.result({**document, "results": [dict(each) for each in results]}, "\n".join(map(made.shown, results)))


def lines() -> list[str]:
    """The lines of stdin that are not empty."""
    return [line for line in sys.stdin.read().splitlines() if line.strip()]
