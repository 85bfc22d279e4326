"""What an answer must look like, and how it is tidied, as flags."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qualm.errors import InputError, UsageError
from qualm.lm.base import Sampling, Shape
from qualm.lm.shapes import check


@dataclass(frozen=True)
class Shaping:
    """At most one shape, and how an answer is tidied."""

    json_schema: Path | None = None
    json_object: Annotated[bool, Parameter(negative="")] = False
    regex: str = ""
    choice: Sequence[str] = ()
    grammar: Path | None = None
    tidy: Literal["markdown", "json", "sentences"] | None = None

    def on(self, sampling: Sampling) -> Sampling:
        """The sampling, held to the shape. Raises UsageError for several, or for one that is refused."""
        asked = [Shape("json", read(self.json_schema))] if self.json_schema else []
        asked += [Shape("json")] if self.json_object else []
        asked += [Shape("regex", self.regex)] if self.regex else []
        choices = [choice for word in self.choice for choice in word.split(",") if choice]
        asked += [Shape("choice", "\n".join(choices))] if self.choice else []
        asked += [Shape("grammar", read(self.grammar))] if self.grammar else []
        if len(asked) > 1:
            raise UsageError("an answer can have one shape only", then="give one of --json-schema, --regex, ...")
        shaped = replace(sampling, shape=asked[0]) if asked else sampling
        check(shaped)
        return shaped


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
