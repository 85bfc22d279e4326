"""Collect: files, folders, patterns, standard input and hub data sets to documents, with an account of every file.

A file that cannot be used is left out, named, with its reason; a malformed line likewise, with its number; both stop
everything where settings are strict. What may hang or blow up is read in a process of its own (`apart`). Files are
taken in sorted order, one at a time, and nothing is held but what is read.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qualm.corpus.account import ignored
from qualm.corpus.apart import Apart
from qualm.corpus.document import Document
from qualm.corpus.formats.base import Taken
from qualm.corpus.hub import SCHEME, fetched
from qualm.corpus.settings import Collecting
from qualm.corpus.taking import Taker, TellTaken, is_apart, is_known, kinds, suffix_of
from qualm.errors import InputError
from qualm.files import hash_file

STDIN = "-"
_PATTERN = re.compile(r"[*?\[]")


def collect(
    sources: Sequence[str | Path],
    settings: Collecting = Collecting(),
    tell: TellTaken = ignored,
    stdin: io.BufferedReader | None = None,
) -> Iterator[Document]:
    """The documents of all sources, in order: files, folders, patterns such as `pages/**/*.html`, `hub:ORG/NAME`, and
    `-` for `stdin`, which holds JSON Lines if it begins with a brace, else text.

    Raises InputError if a source is not there, holds no file, or holds what cannot be used while settings are strict.
    """
    hashing = _Hashing(tell)
    here, apart = Taker(settings, hashing), Apart(settings, hashing)
    try:
        for source in sources:
            if source == STDIN:
                yield from _standard(here, stdin)
                continue
            for path, name in _files(source, settings, len(sources) > 1):
                if not is_known(name):
                    here.tell(Taken(name, reason=f"a {suffix_of(name) or 'nameless'} file is not read"))
                    continue
                hashing.now = name, path
                yield from (apart if is_apart(name) else here).file(path, name)
    finally:
        apart.close()


@dataclass
class _Hashing:
    """Tells what became of a file with its hash, if somebody asks; of a member of an archive there is none."""

    tell: TellTaken
    now: tuple[str, Path] = "", Path()

    def __call__(self, taken: Taken) -> None:
        name, path = self.now
        if self.tell is not ignored and taken.name == name and path.is_file():
            taken.sha256, taken.bytes = hash_file(path), path.stat().st_size
        self.tell(taken)


def _files(source: str | Path, settings: Collecting, many: bool) -> Iterator[tuple[Path, str]]:
    """(path, name) of each file: the name is the path from its folder on, behind the folder's if there are several."""
    text = str(source)
    if isinstance(source, str) and text.startswith(SCHEME):
        folder, files = fetched(text, [*kinds()])
        yield from ((path, path.relative_to(folder).as_posix()) for path in files)
        return
    root = Path(source)
    if root.is_dir():
        before = f"{root.resolve().name}/" if many else ""
        found = ((path, path.relative_to(root)) for path in sorted(p for p in root.rglob("*") if p.is_file()))
        for path, name in found:
            if not _is_hidden(name) and (is_known(path.name) or not settings.strict):
                yield path, before + name.as_posix()
    elif not root.exists() and _PATTERN.search(text):
        parts = root.parts
        first = next(i for i, part in enumerate(parts) if _PATTERN.search(part))
        base = Path(*parts[:first])
        found = (
            (path, path.relative_to(base)) for path in sorted(base.glob("/".join(parts[first:]))) if path.is_file()
        )
        files = [(path, name.as_posix()) for path, name in found if not _is_hidden(name)]
        if not files:
            raise InputError("matches no file", where=text, then="check the pattern")
        yield from files
    elif not root.exists():
        raise InputError("no such file or folder", where=text, then="check the path")
    elif not is_known(root.name):
        then = f"give {', '.join(sorted(kinds()))} or a folder of them"
        raise InputError(f"cannot read documents from a {root.suffix or 'nameless'} file", where=text, then=then)
    else:
        yield root, root.name


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _standard(here: Taker, stdin: io.BufferedReader | None) -> Iterator[Document]:
    if stdin is None:
        raise InputError("nothing stands at standard input", where=STDIN, then="name a file")
    name = "stdin.jsonl" if stdin.peek(1).lstrip()[:1] == b"{" else "stdin.txt"
    yield from here.stream(stdin, Taken(name), name)
