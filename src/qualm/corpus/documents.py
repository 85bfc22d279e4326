"""Documents of files and folders, and their split by a hash of the content.

What is read is what `qualm.corpus.formats` has a file for: text, JSON Lines, tables, pages, books. A `.txt` or `.md`
file is one document; a longer one is cut at blank lines, so that a single book can be split too, and their texts joined
are the file again. A `.jsonl` file holds one document a line, `{"text": ...}` or `{"messages": [{"role": ...,
"content": ...}, ...]}`; its "id" is kept and every other key goes into `meta`. A folder is read recursively in sorted
order, hidden files and other kinds left out. Blank documents are left out. Nothing malformed is passed over: it raises
InputError with file and line. `qualm.corpus.collecting` reads the same files forgivingly, and accounts for each.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from qualm.corpus.collecting import collect
from qualm.corpus.document import Document
from qualm.corpus.settings import Collecting
from qualm.errors import InputError, UsageError

__all__ = ["Document", "read", "split"]


def read(source: Path | str) -> Iterator[Document]:
    """The documents of a file or folder, in order.

    Raises InputError: no such file, a kind that is not read, bad UTF-8 or a malformed record (file and line),
    or no document at all.
    """
    empty = True
    for document in collect([Path(source)], Collecting(strict=True, repair=False)):
        empty = False
        yield document
    if empty:
        raise InputError("holds no text", where=str(source), then="name .txt, .md or .jsonl files, or a folder of them")


def split(documents: Iterable[Document], held_out: float = 0.05) -> tuple[list[Document], list[Document]]:
    """(training, held-out): about `held_out` of the distinct documents, chosen by the hash of their content.

    Duplicates fall on one side, and no document moves when others are added; at least one document is held out
    unless `held_out` is 0. Raises InputError if there are not two distinct documents to part.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"must be at least 0 and below 1, not {held_out}", where="held_out")
    all_of_them = list(documents)
    if held_out == 0:
        return all_of_them, []
    keys = sorted({d.key for d in all_of_them})
    if len(keys) < 2:
        raise InputError("fewer than two distinct documents", then="add text, or hold none out (held_out=0)")
    border = f"{int(held_out * 2**128):032x}"
    below = sum(key < border for key in keys)
    last = keys[min(max(below, 1), len(keys) - 1) - 1]  # at least one on either side
    return [d for d in all_of_them if d.key > last], [d for d in all_of_them if d.key <= last]
