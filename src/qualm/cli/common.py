"""What all verbs share: the flags that every one takes, where its words go, and how its result is printed.

Results go to stdout, everything else to stderr.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Group, Parameter
from rich.console import Console, RenderableType

EVERYWHERE = Group("Everywhere", sort_key=9)
MOST_COLUMNS, PIPE_COLUMNS = 140, 120


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags of every verb."""

    json: Annotated[bool, Parameter(negative="", help="Print the result (or the error) as one JSON document.")] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="No progress, no remarks.")] = False
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", help="More remarks.")] = False
    debug: Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")] = False
    cache: Annotated[Path | None, Parameter(help="Keep answers and downloads here.", show_default="~/.cache/qualm")] = (
        None
    )
    config: Annotated[Path | None, Parameter(help="Read settings from this file.", show_default="qualm.toml")] = None

    @property
    def cache_folder(self) -> Path:
        return self.cache.expanduser() if self.cache else default_cache()

    @property
    def answers(self) -> Path:
        """Where the answers of models are kept."""
        return self.cache_folder / "answers"

    def remark(self, text: str) -> None:
        """Something a person should know, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Something only `--verbose` asks for, on stderr."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def result(self, document: dict[str, Any], shown: RenderableType) -> None:
        """The result on stdout: `document` under `--json`, else `shown`, for people."""
        if self.json:
            print_json(document)
        else:
            console(sys.stdout).print(shown, soft_wrap=isinstance(shown, str), markup=False, highlight=False)


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False), flush=True)


def print_json_line(document: dict[str, Any]) -> None:
    """One document of a stream of them: JSON Lines."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)


def default_cache() -> Path:
    """$XDG_CACHE_HOME/qualm, or ~/.cache/qualm."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qualm"


def is_lively(stream: TextIO) -> bool:
    """Whether colour and moving bars are welcome: at a terminal, unless NO_COLOR, TERM=dumb or CI say no."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not os.environ.get("CI")


def console(stream: TextIO) -> Console:
    """A rich console that is plain when `stream` is not lively, and wide enough for a table when it is a pipe."""
    lively = is_lively(stream)
    wide = None if stream.isatty() else PIPE_COLUMNS
    made = Console(file=stream, force_terminal=lively, no_color=not lively, width=wide, emoji=False)
    if made.width > MOST_COLUMNS:
        made.width = MOST_COLUMNS
    return made
