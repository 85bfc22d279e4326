"""Describe: what a corpus holds, what was dropped on the way to it and why, in numbers.

Documents, bytes, lengths and exact copies are counted over all of it; what is dearer is read off a sample, drawn by the
hash of the content, so that it is the same in whatever order documents come. A folder that a pipeline wrote tells its
flow and its dropped documents too.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from qualm import __version__
from qualm.corpus import measures
from qualm.corpus.document import Document
from qualm.corpus.documents import read
from qualm.corpus.leaks import tests_of
from qualm.corpus.notes import whole
from qualm.corpus.settings import Deduping, Describing
from qualm.corpus.topics import topics
from qualm.errors import InputError
from qualm.files import read_json
from qualm.text import personal, toxic
from qualm.text.grams import words
from qualm.text.language import identify

SCHEMA = "qualm.description/1"
_LONGEST = 8000  # characters of a document that the sample keeps
_DIVERSE, _SHOWN, _EXAMPLES = 300, 160, 4
_SIDES = ("documents.jsonl", "train.jsonl", "held_out.jsonl")


def describe(source: Path | str, settings: Describing = Describing()) -> dict[str, Any]:
    """The description of a file, a folder of documents, or a folder that a pipeline wrote, as JSON has it.

    Raises InputError if there is no document in it.
    """
    root = Path(source)
    made = root.is_dir() and (root / "manifest.json").exists()
    manifest = read_json(root / "manifest.json") if made else {}
    counted = Counted(settings.sample)
    for document in _documents(root, made):
        counted.add(document)
    if not counted.documents:
        raise InputError("holds no document", where=str(root), then="name others")
    sample = [document for _, _, document in sorted(counted.held, reverse=True)]
    texts = [whole(document)[:_LONGEST] for document in sample]
    return {
        "schema": SCHEMA,
        "qualm": __version__,
        "source": str(source),
        "size": counted.told,
        "sample": len(sample),
        **_read_off(texts, settings),
        "flow": flow(manifest),
        "dropped": _dropped(root / "dropped.jsonl") if made else [],
    }


@dataclass
class Counted:
    """What is counted over all documents, and a sample of them: those whose content has the least hashes."""

    sample: int
    documents: int = 0
    bytes: int = 0
    copies: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    held: list[tuple[int, int, Document]] = field(default_factory=list)
    _keys: set[int] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=count)

    def add(self, document: Document) -> None:
        key = int(document.key[:16], 16)
        self.documents += 1
        self.bytes += document.bytes
        self.copies += key in self._keys
        self._keys.add(key)
        self.lengths[max(document.bytes, 1).bit_length() - 1] += 1
        self.sources[_origin(document)] += 1
        entry = (-key, next(self._numbers), document)
        if len(self.held) < self.sample:
            heapq.heappush(self.held, entry)
        elif key < -self.held[0][0]:
            heapq.heapreplace(self.held, entry)

    @property
    def told(self) -> dict[str, Any]:
        """`lengths` is [[bytes from which, documents]], by powers of two; `sources` the twelve largest."""
        lengths = [[2**power, self.lengths[power]] for power in range(min(self.lengths), max(self.lengths) + 1)]
        sources = dict(self.sources.most_common(12))
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "exact_copies": self.copies,
            "lengths": lengths,
            "sources": sources,
        }


def flow(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a step: documents and bytes in and out, what was dropped by reason and changed by kind."""
    rows = []
    if collected := manifest.get("collected"):
        told = {"files": collected["files"], "skipped": collected["skipped"], "bad": collected["bad"]}
        rows.append({"step": "collect", "written": collected["documents"], **told, "formats": collected["formats"]})
    for step in manifest.get("steps", []):
        if "written" in step:
            names = ("step", "read", "written", "bytes_read", "bytes_written", "dropped", "changed")
            rows.append({name: step[name] for name in names if name in step})
    return rows


def _documents(root: Path, made: bool) -> Iterator[Document]:
    if not made:
        yield from read(root)
        return
    for side in _SIDES:
        if (root / side).exists() and (root / side).stat().st_size:
            yield from read(root / side)


def _origin(document: Document) -> str:
    """The file that a document was first read from, or the folder of it where there is one."""
    earlier = document.meta.get("provenance")
    source = str(earlier.get("source", "")) if isinstance(earlier, dict) else document.source
    name = source.rpartition(":")[0] or source
    return name.split("/")[0] if "/" in name else name


def _read_off(texts: list[str], settings: Describing) -> dict[str, Any]:
    """What is read off the sample."""
    told = [identify(text)[0] for text in texts]
    groups = defaultdict(list)
    for text, language in zip(texts, told, strict=True):
        groups[language].append(text)
    many, kinds, bits, ratio = measures.vocabulary(texts)
    diverse = texts[:_DIVERSE]
    found = topics(texts, settings.seed)
    return {
        "languages": {name: len(groups[name]) for name in sorted(groups, key=lambda name: -len(groups[name]))},
        "words": {
            "mean": float(np.mean([len(words(text)) for text in texts])),
            "sample": many,
            "different": kinds,
            "entropy": bits,
            "type_token": ratio,
        },
        "near_copies": measures.near_copies(texts),
        "vendi": {"score": measures.vendi(diverse), "of": len(diverse)},
        "topics": [
            {"documents": t.size, "words": list(t.words), "examples": [_excerpt(texts[i]) for i in t.nearest]}
            for t in found
        ],
        "personal": _personal(texts),
        "toxic": _toxic(texts),
        "contamination": _contamination(texts, settings),
    }


def _personal(texts: list[str]) -> dict[str, dict[str, int]]:
    """Kind -> documents that hold it, and how many there are; placeholders of `scrub` are none."""
    documents, places = Counter[str](), Counter[str]()
    for text in texts:
        kinds = [found.kind for found in personal.find(text, personal.KINDS)]
        places.update(kinds)
        documents.update(set(kinds))
    return {kind: {"documents": documents[kind], "places": places[kind]} for kind in personal.KINDS}


def _toxic(texts: list[str]) -> dict[str, int]:
    found = [len(toxic.lines(text)) for text in texts]
    return {"documents": sum(n > 0 for n in found), "lines": sum(found), "of": sum(t.count("\n") + 1 for t in texts)}


def _contamination(texts: list[str], settings: Describing) -> dict[str, Any] | None:
    """How many documents share an n-gram with a test set, and which; None if none was named."""
    if not settings.tests:
        return None
    tests = tests_of(Deduping(evaluation=settings.tests))
    hits = [hit for text in texts if (hit := tests.find(text))]
    return {"documents": len(hits), "examples": hits[:_EXAMPLES]}


def _dropped(path: Path) -> list[dict[str, Any]]:
    """A row a step and reason: how many documents, and some of them."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    with path.open(encoding="utf-8") as lines:
        for note in map(json.loads, lines):
            key = note["step"], note["reason"]
            row = groups.setdefault(key, {"step": key[0], "reason": key[1], "documents": 0, "examples": []})
            row["documents"] += 1
            if len(row["examples"]) < _EXAMPLES:
                row["examples"].append({name: note.get(name, "") for name in ("id", "detail", "excerpt")})
    return list(groups.values())


def _excerpt(text: str) -> str:
    return personal.scrub(" ".join(text[:1000].split()), {}, personal.KINDS)[0][:_SHOWN]
