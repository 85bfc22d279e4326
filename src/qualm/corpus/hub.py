"""Data sets of the hub, fetched only when named: `hub:ORG/NAME`, with `@REVISION` and `#PATTERN` of files."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from qualm.corpus.unpacking import ARCHIVE, PACKED
from qualm.errors import InputError, MissingExtra, Unreachable, UsageError

SCHEME = "hub:"
_NAME = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?(?:#(.+))?")


def fetched(spec: str, suffixes: Sequence[str]) -> tuple[Path, list[Path]]:
    """(folder, files of it that documents are read from, sorted).

    Raises UsageError for a spec that means nothing, MissingExtra without huggingface_hub, Unreachable if it is
    neither at hand nor to be had, InputError if it holds no such file.
    """
    found = _NAME.fullmatch(spec)
    if not found:
        raise UsageError(
            "names no data set", where=spec, then="write hub:ORG/NAME, hub:ORG/NAME@REVISION#train*.parquet"
        )
    name, revision, pattern = found.groups()
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("the hub needs huggingface_hub", then="pip install 'qualm-lm[hf]'") from error
    wanted = [f"*{suffix}{packing}" for suffix in (*suffixes, ARCHIVE) for packing in ("", *PACKED)]
    asked = {"revision": revision, "allow_patterns": [pattern] if pattern else wanted}
    try:
        folder = snapshot_download(name, repo_type="dataset", **asked)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        then = "check its name and the network; with HF_HUB_OFFLINE=1 only what was fetched before is there"
        raise Unreachable(f"the hub does not give it ({reason})"[:400], where=spec, then=then) from error
    kept = []
    for path in sorted(Path(folder).rglob("*")):
        known = any(fnmatch.fnmatch(path.name, each) for each in wanted) and path.name != "README.md"
        if known and path.is_file() and (not pattern or fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern)):
            kept.append(path)
    if not kept:
        raise InputError("holds no file that documents are read from", where=spec, then="name others behind a #")
    return Path(folder), kept
