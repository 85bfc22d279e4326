"""`qualm corpus`: from documents to a corpus, step by step, with an account of every document."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from rich.table import Table

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.corpus.settings import Cleaning, Collecting, Deduping, Filtering, Scrubbing, Settings
from qualm.errors import UsageError

COLLECT, CLEAN, DEDUP, FILTER, SCRUB = (
    Group(name, sort_key=key) for key, name in enumerate(("collect", "clean", "dedup", "filter", "scrub"), 3)
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Chain:
    """The settings of collecting and of every step."""

    collecting: Annotated[Collecting, Parameter(name="*", group=COLLECT)] = field(default_factory=Collecting)
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
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    chain: Chain = Chain(),
    common: Common = Common(),
) -> None:
    """Collect, clean, dedup, filter or scrub documents, and write what is kept and why the rest is not.

    Args:
        steps: collect, clean, dedup, filter or scrub, or several in order: collect,clean,dedup,filter,scrub.
        sources: A file or folder; to collect, several, patterns, - for stdin, hub:ORGANISATION/NAME.
        output: The folder for documents.jsonl, dropped.jsonl, manifest.json; collected.jsonl has a line a file.
    """
    known = chain.named
    wanted = [step.strip() for step in steps.split(",")]
    if unknown := [step for step in wanted if step not in (*known, "collect")]:
        raise UsageError(f"no step is named {unknown[0]!r}", then=f"there are: collect, {', '.join(known)}")
    collects = wanted[0] == "collect"
    if "collect" in wanted[1:]:
        raise UsageError(
            "collect is not the first step", then=f"write collect,{','.join(wanted).replace(',collect', '')}"
        )
    if unknown := [source for source in sources if source.startswith("-") and source != "-"]:
        raise UsageError(f"no option is named {unknown[0]!r}", then="see qualm corpus --help")
    if len(sources) != 1 and not (sources and collects):
        raise UsageError("one source is needed", then="name a file or folder; collect takes several")
    for step, settings in {"collect": chain.collecting, **known}.items():
        changed = [f.name for f in fields(settings) if getattr(settings, f.name) != f.default]
        if changed and step not in wanted:
            raise UsageError(f"--{changed[0].replace('_', '-')} is a setting of {step}, which is not among the steps")
    pipeline = rooms.pipeline.Pipeline([known[step] for step in wanted if step != "collect"])
    if not collects:
        manifest = pipeline.run(rooms.documents.read(sources[0]), output)
        _told(manifest, output, common)
        return
    standard = open(sys.stdin.fileno(), "rb", closefd=False) if "-" in sources else nullcontext()  # noqa: SIM115
    with rooms.account.accounting(output) as account, standard as stdin:
        manifest = pipeline.run(rooms.collecting.collect(sources, chain.collecting, account.add, stdin), output)
    _told({**manifest, "collected": account.told}, output, common)
    if account.skipped:
        common.remark(f"skipped {account.skipped} files, and why: {output / 'collected.jsonl'}")
    account.check(chain.collecting.most_bad)


def _told(manifest: dict[str, Any], output: Path, common: Common) -> None:
    common.result({"schema": "qualm.corpus/1", "output": str(output), **manifest}, _table(manifest))
    common.remark(f"kept: {output / 'documents.jsonl'}; dropped, and why: {output / 'dropped.jsonl'}")


def _apart(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _table(manifest: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("step", "read", "kept", "dropped", "changed"):
        table.add_column(column, justify="left" if column in ("step", "dropped", "changed") else "right")
    if collected := manifest.get("collected"):
        told = [f"{collected['bad']} records" if collected["bad"] else "", f"{collected['mended']} mended"]
        files, documents = f"{collected['files']} files", str(collected["documents"])
        table.add_row("collect", files, documents, told[0] or "none", told[1] if collected["mended"] else "none")
    for step in manifest["steps"]:
        told = (", ".join(f"{count} {name}" for name, count in step[key].items()) for key in ("dropped", "changed"))
        table.add_row(step["step"], str(step["read"]), str(step["written"]), *(text or "none" for text in told))
    return table
