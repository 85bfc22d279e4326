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
from qualm.corpus.settings import (
    Augmenting,
    Balancing,
    Cleaning,
    Collecting,
    Deduping,
    Describing,
    Filtering,
    Packing,
    Running,
    Scrubbing,
    Settings,
    Splitting,
)
from qualm.errors import UsageError

STEPS = "collect clean dedup filter scrub balance augment split pack describe"
COLLECT, CLEAN, DEDUP, FILTER, SCRUB, BALANCE, AUGMENT, SPLIT, PACK, DESCRIBE, RUNNING = (
    Group(name, sort_key=key) for key, name in enumerate((*STEPS.split(), "Where it runs"), 3)
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
    balancing: Annotated[Balancing, Parameter(name="*", group=BALANCE)] = field(default_factory=Balancing)
    augmenting: Annotated[Augmenting, Parameter(name="*", group=AUGMENT)] = field(default_factory=Augmenting)
    splitting: Annotated[Splitting, Parameter(name="*", group=SPLIT)] = field(default_factory=Splitting)
    describing: Annotated[Describing, Parameter(name="*", group=DESCRIBE)] = field(default_factory=Describing)
    packing: Annotated[Packing, Parameter(name="*", group=PACK)] = field(default_factory=Packing)

    @property
    def named(self) -> dict[str, Settings]:
        """By the names of the steps; "en,zh" is two languages."""
        languages, licences = _apart(self.filtering.languages), _apart(self.filtering.licences)
        filtering = replace(self.filtering, languages=languages, licences=licences)
        before = {"clean": self.cleaning, "dedup": self.deduping, "filter": filtering, "scrub": self.scrubbing}
        before |= {"balance": self.balancing, "augment": self.augmenting}
        return {**before, "split": self.splitting, "pack": self.packing}


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True, kw_only=True)
class Way(Running):
    """Where it runs, and whether for show."""

    check: Annotated[bool, Parameter(negative="", help="Build a manifest.json again, elsewhere, and compare.")] = False


def corpus(
    steps: str,
    /,
    *sources: Annotated[str, Parameter(allow_leading_hyphen=True)],
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    chain: Chain = Chain(),
    running: Way = Way(),
    common: Common = Common(),
) -> None:
    """Take documents through steps, and write what is kept and why the rest is not.

    The same command again goes on where the last one was ended.

    Args:
        steps: collect, clean, dedup, filter, scrub, balance, augment, split or pack, or several: collect,clean,dedup.
            Or build, by a recipe; or describe, which writes OUTPUT.html and OUTPUT.json.
        sources: A file or folder; to collect, several, patterns, - for stdin, hub:ORGANISATION/NAME. To build: a
            recipe.toml, or the manifest.json of what was built, which must come out again.
        output: The folder for documents.jsonl (of a split: train.jsonl and held_out.jsonl), dropped.jsonl,
            manifest.json, shards and tokenizer; collected.jsonl has a line a file.
    """
    wanted = [step.strip() for step in steps.split(",")]
    known, cache = chain.named, common.cache_folder
    _check_words(wanted, sources, {"collect": chain.collecting, "describe": chain.describing, **known}, running.check)
    if running.check:
        rooms.building.check(sources[0], running, cache)
        common.result({"schema": "qualm.corpus/1", "same": True}, "the same, bit for bit")
        return
    if output is None:
        raise UsageError("--output is missing", then="say where: -o corpus")
    if wanted == ["describe"]:
        told = rooms.describing.describe(sources[0], chain.describing)
        common.result(told, "\n".join(map(str, rooms.description.write(told, output))))
        return
    if wanted == ["build"]:
        _told(rooms.building.build(sources[0], output, running, cache), output, common)
        return
    pipeline = rooms.pipeline.Pipeline([known[step] for step in wanted if step != "collect"])
    if wanted[0] != "collect":
        _told(pipeline.run(rooms.documents.read(sources[0]), output, running), output, common)
        return
    standard = open(sys.stdin.fileno(), "rb", closefd=False) if "-" in sources else nullcontext()  # noqa: SIM115
    with rooms.account.accounting(output) as account, standard as stdin:
        documents = rooms.collecting.collect(sources, chain.collecting, account.add, stdin)
        manifest = pipeline.run(documents, output, running)
    _told({**manifest, "collected": account.told}, output, common)
    if account.skipped:
        common.remark(f"skipped {account.skipped} files, and why: {output / 'collected.jsonl'}")
    account.check(chain.collecting.most_bad)


def _check_words(wanted: list[str], sources: tuple[str, ...], known: dict[str, Any], check: bool) -> None:
    """Raises UsageError for a step that there is not, a setting of one that is not taken, and wrong sources."""
    if unknown := [step for step in wanted if step not in known and wanted not in (["build"], ["describe"])]:
        raise UsageError(f"no step is named {unknown[0]!r}", then=f"there are: build, describe, {', '.join(known)}")
    if "collect" in wanted[1:]:
        raise UsageError(
            "collect is not the first step", then=f"write collect,{','.join(wanted).replace(',collect', '')}"
        )
    if check and wanted != ["build"]:
        raise UsageError("--check is for build", then="qualm corpus build --check manifest.json")
    if unknown := [source for source in sources if source.startswith("-") and source != "-"]:
        raise UsageError(f"no option is named {unknown[0]!r}", then="see qualm corpus --help")
    if len(sources) != 1 and not (sources and wanted[0] == "collect"):
        raise UsageError("one source is needed", then="name a file or folder; collect takes several")
    for step, settings in known.items():
        changed = [f.name for f in fields(settings) if getattr(settings, f.name) != f.default]
        if changed and step not in wanted:
            raise UsageError(f"--{changed[0].replace('_', '-')} is a setting of {step}, which is not among the steps")


def _told(manifest: dict[str, Any], output: Path, common: Common) -> None:
    common.result({"schema": "qualm.corpus/1", "output": str(output), **manifest}, _table(manifest))
    kept = " and ".join(
        str(output / name) for name in manifest["files"] if name.endswith("l") and name != "dropped.jsonl"
    )
    common.remark(f"kept: {kept}; dropped, and why: {output / 'dropped.jsonl'}")


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
        if step["step"] == "pack":
            made = ", ".join(f"{side} {told['tokens']:,} tokens" for side, told in step["packed"].items())
            table.add_row("pack", *(str(sum(told["documents"] for told in step["packed"].values())),) * 2, "none", made)
            continue
        told = (", ".join(f"{count} {name}" for name, count in step[key].items()) for key in ("dropped", "changed"))
        table.add_row(step["step"], str(step["read"]), str(step["written"]), *(text or "none" for text in told))
    return table
