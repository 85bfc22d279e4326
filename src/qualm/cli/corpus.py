"""`qualm corpus`: from documents to a corpus, step by step, with an account of every document."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from rich.table import Table

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.corpus.settings import Cleaning, Deduping, Filtering, Scrubbing, Settings
from qualm.errors import UsageError

CLEAN, DEDUP, FILTER, SCRUB = (
    Group(name, sort_key=key) for key, name in enumerate(("clean", "dedup", "filter", "scrub"), 3)
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Chain:
    """The settings of every step."""

    cleaning: Annotated[Cleaning, Parameter(name="*", group=CLEAN)] = field(default_factory=Cleaning)
    deduping: Annotated[Deduping, Parameter(name="*", group=DEDUP)] = field(default_factory=Deduping)
    filtering: Annotated[Filtering, Parameter(name="*", group=FILTER)] = field(default_factory=Filtering)
    scrubbing: Annotated[Scrubbing, Parameter(name="*", group=SCRUB)] = field(default_factory=Scrubbing)

    @property
    def named(self) -> dict[str, Settings]:
        """By the names of the steps; "en,zh" is two languages."""
        languages, licences = _apart(self.filtering.languages), _apart(self.filtering.licences)
        filtering = replace(self.filtering, languages=languages, licences=licences)
        return {"clean": self.cleaning, "dedup": self.deduping, "filter": filtering, "scrub": self.scrubbing}


def corpus(
    steps: str,
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    chain: Chain = Chain(),
    common: Common = Common(),
) -> None:
    """Clean, dedup, filter or scrub documents, and write what is kept and why the rest is not.

    Args:
        steps: clean, dedup, filter or scrub, or several in order: clean,dedup,filter,scrub.
        source: A .txt, .md or .jsonl file, or a folder of them.
        output: The folder for documents.jsonl, dropped.jsonl and manifest.json.
    """
    known = chain.named
    wanted = [step.strip() for step in steps.split(",")]
    if unknown := [step for step in wanted if step not in known]:
        raise UsageError(f"no step is named {unknown[0]!r}", then=f"there are: {', '.join(known)}")
    for step, settings in known.items():
        changed = [f.name for f in fields(settings) if getattr(settings, f.name) != f.default]
        if changed and step not in wanted:
            raise UsageError(f"--{changed[0].replace('_', '-')} is a setting of {step}, which is not among the steps")
    documents = rooms.documents.read(source)
    manifest = rooms.pipeline.Pipeline([known[step] for step in wanted]).run(documents, output)
    common.result({"schema": "qualm.corpus/1", "output": str(output), **manifest}, _table(manifest))
    common.remark(f"kept: {output / 'documents.jsonl'}; dropped, and why: {output / 'dropped.jsonl'}")


def _apart(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _table(manifest: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("step", "read", "kept", "dropped", "changed"):
        table.add_column(column, justify="left" if column in ("step", "dropped", "changed") else "right")
    for step in manifest["steps"]:
        told = (", ".join(f"{count} {name}" for name, count in step[key].items()) for key in ("dropped", "changed"))
        table.add_row(step["step"], str(step["read"]), str(step["written"]), *(text or "none" for text in told))
    return table
