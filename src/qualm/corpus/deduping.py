"""Dedup: documents that stood before, exactly or nearly, are dropped; so is what lies in another split or a test set.

Lee et al. 2022 (arXiv 2107.06499) for why; Brown et al. 2020 (arXiv 2005.14165, appendix C) for 13-grams. The first of
several stays. Only hashes and names are held: 168 bytes a document for the bands and 224 for checking them.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qualm.corpus.documents import Document, read
from qualm.corpus.notes import Tell, changed, dropped, is_blank, rewritten, silent, whole
from qualm.corpus.records import KINDS, read_records
from qualm.corpus.settings import Deduping
from qualm.text import minhash
from qualm.text.grams import grams, words

SHORTEST = 8  # words of a text that can be looked for
_PARTS = {"paragraphs": re.compile(r"(\n[ \t]*\n)"), "lines": re.compile(r"(\n)")}


def dedup(documents: Iterable[Document], settings: Deduping = Deduping(), tell: Tell = silent) -> Iterator[Document]:
    """The documents that are new, in order.

    Raises InputError if a file of `held_out` or `evaluation` cannot be read.
    """
    known, tests, parts = Known(settings.near), Tests.of(settings), minhash.Seen()
    for path in settings.held_out:
        for document in read(path):
            if not known.find(document):
                known.add(document, f"{path.name}: {document.id}")
    for document in documents:
        hit = tests.find(whole(document))
        if hit:
            tell(dropped("dedup", document, "in a test set", hit))
            continue
        if found := known.find(document):
            tell(dropped("dedup", document, *found))
            continue
        known.add(document, document.id)
        made, cut = _new_parts(document, settings, parts)
        if is_blank(made):
            tell(dropped("dedup", document, "every part stood before"))
            continue
        if cut:
            tell(changed("dedup", document, cut))
        yield made


@dataclass
class Known:
    """What was kept: a hash of each document, the keys of its bands, and 16 bits of each of its 112 hashes."""

    near: float
    names: list[str] = field(default_factory=list)
    _exact: minhash.Seen = field(default_factory=minhash.Seen)
    _bands: minhash.Seen = field(default_factory=minhash.Seen)
    _signatures: np.ndarray = field(default_factory=lambda: np.zeros((1024, minhash.HASHES), np.uint16))
    _last: tuple[Document, np.ndarray | None] | None = None

    def find(self, document: Document) -> tuple[str, str] | None:
        """(reason, which) of the first that is the same or nearly."""
        same = int(self._exact.get(_hash(document.key))[0])
        if same >= 0:
            return "exact duplicate", self.names[same]
        made = minhash.signature(whole(document)) if self.near else None
        self._last = document, made
        if made is None:
            return None
        candidates = np.unique(self._bands.get(minhash.bands(made)))
        for number in candidates[candidates >= 0].tolist():
            alike = minhash.similarity(self._signatures[number], made.astype(np.uint16))
            if alike >= self.near:
                return "near duplicate", f"{self.names[number]} ({alike:.2f})"
        return None

    def add(self, document: Document, name: str) -> None:
        """A document that `find` did not find just now."""
        number = len(self.names)
        self.names.append(name)
        self._exact.add(_hash(document.key), number)
        made = self._last[1] if self._last and self._last[0] is document else None
        if made is None:
            return
        if number >= len(self._signatures):
            more = np.zeros((max(2 * number, 1024) - len(self._signatures), minhash.HASHES), np.uint16)
            self._signatures = np.concatenate((self._signatures, more))
        self._signatures[number] = made.astype(np.uint16)
        self._bands.add(minhash.bands(made), number)


@dataclass
class Tests:
    """The n-grams of test sets, by their length: the whole of texts shorter than `ngram`."""

    ngram: int
    names: list[str] = field(default_factory=list)
    _seen: dict[int, minhash.Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Deduping) -> "Tests":
        made = cls(settings.ngram)
        for path in settings.evaluation:
            for name, text in _test_texts(path):
                made.add(name, text)
        return made

    def add(self, name: str, text: str) -> None:
        hashes = words(text).hashes
        if len(hashes) >= SHORTEST:
            n = min(self.ngram, len(hashes))
            self._seen.setdefault(n, minhash.Seen()).add(grams(hashes, n), len(self.names))
            self.names.append(name)

    def find(self, text: str) -> str:
        """The first n-gram of a text that stands in a test set, and where; "" for none."""
        if not self.names:
            return ""
        found = words(text)
        for n, seen in self._seen.items():
            if len(found) >= n:
                numbers = seen.get(grams(found.hashes, n))
                if len(at := np.flatnonzero(numbers >= 0)):
                    first = int(at[0])
                    shown = text[found.starts[first] : found.ends[first + n - 1]]
                    return f"{self.names[int(numbers[first])]}: {' '.join(shown.split())!r} ({len(at)} of {n} words)"
        return ""


def _test_texts(path: Path) -> Iterator[tuple[str, str]]:
    """(name:place, text) of each text in a test set: every field of a record, every document of a folder."""
    if path.suffix in KINDS:
        for record in read_records(path)[0]:
            for name, value in record.items():
                if isinstance(value, str):
                    yield f"{Path(record.where).name} {name}", value
    else:
        for document in read(path):
            yield f"{path.name} {document.id}", whole(document)


def _new_parts(document: Document, settings: Deduping, seen: minhash.Seen) -> tuple[Document, dict[str, int]]:
    """The document without paragraphs and lines that stood before, and how many were cut."""
    cut: dict[str, int] = {}
    for number, (name, pattern) in enumerate(_PARTS.items()):
        least = int(getattr(settings, name))
        if not least:
            continue

        def change(
            text: str, name: str = name, pattern: re.Pattern = pattern, least: int = least, number: int = number
        ) -> str:
            pieces, kept = pattern.split(text), list[str]()
            for i in range(0, len(pieces), 2):
                plain = " ".join(pieces[i].split())
                key = _hash(f"{number}{plain}")
                if len(plain) >= least and int(seen.get(key)[0]) >= 0:
                    cut[name] = cut.get(name, 0) + 1
                    continue
                seen.add(key, 0)
                kept += pieces[i : i + 2]
            return text if len(kept) == len(pieces) else "".join(kept).rstrip()

        document = rewritten(document, change)
    return document, cut


def _hash(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), "<u8")
