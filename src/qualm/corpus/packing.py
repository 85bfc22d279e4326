"""Documents as one long array of token ids on disk, cut into rows of a fixed length when it is read.

A packed folder holds `ids.bin` (the ids end to end, little-endian uint16 or uint32: an end token, then each
document followed by one), `documents.npy` (per document: where it ends in ids.bin, and its UTF-8 bytes) and
`manifest.json` (counts and SHA-256 hashes, written last). Because an end token stands first, every token of
every document is predicted once, and bits per byte = nats / ln 2 / bytes holds exactly.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualm.corpus.documents import Document
from qualm.errors import InputError
from qualm.files import hash_file, read_json, write_json, writing
from qualm.tokens.tokenizer import Tokens

FORMAT, VERSION = "qualm.packed", 1
GROUP = 256  # documents tokenised at once


@dataclass(frozen=True)
class Packed:
    """`ids` (N,) memory-mapped; `ends` (documents,) where each document ends; `sizes` (documents,) their bytes.

    `identity` names what it was made from: the hash of the documents in order, and of the tokenizer.
    """

    ids: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    identity: Mapping[str, str]

    @property
    def tokens(self) -> int:
        """Predicted tokens: all but the end token that stands first."""
        return len(self.ids) - 1

    @property
    def bytes(self) -> int:
        return int(self.sizes.sum())

    def head(self, tokens: int) -> "Packed":
        """The first whole documents that hold at least `tokens` tokens (all of them if there are fewer)."""
        count = min(int(np.searchsorted(self.ends, tokens + 1)) + 1, len(self.ends))
        identity = {**self.identity, "head": str(count)}
        return Packed(self.ids[: self.ends[count - 1]], self.ends[:count], self.sizes[:count], identity)

    def rows(self, length: int) -> int:
        """How many rows of `length` + 1 ids there are, a shorter last one included; neighbours share one id."""
        return -(-self.tokens // length)


def pack(documents: Iterable[Document], tokens: Tokens, folder: Path | str) -> Packed:
    """Tokenise documents into `folder`, through the chat template where they are conversations.

    Raises InputError if there is no document. What already lies in `folder` is reused if it was made from the
    same documents and tokenizer and its hashes hold.
    """
    folder, kept = Path(folder), list(documents)
    if not kept:
        raise InputError("no documents to pack", where=str(folder), then="add text")
    identity = {"documents": documents_hash(kept), "tokenizer": tokens.hash, "template": tokens.template_hash}
    if tokens.eos_id is None:
        raise InputError("the tokenizer has no end token", where=tokens.where, then="name one as eos_token")
    if _reusable(folder, identity):
        return load(folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    return _write(kept, tokens, folder, identity)


def load(folder: Path | str) -> Packed:
    """Open a packed folder. Raises InputError if it is missing, of another version, or cut short."""
    folder = Path(folder)
    manifest = _manifest(folder)
    if not _whole(folder, manifest, hashes=False):
        raise InputError("packed files are missing or cut short", where=str(folder), then="pack the corpus again")
    ids = np.memmap(folder / "ids.bin", dtype=np.dtype(manifest["dtype"]), mode="r")
    documents = np.load(folder / "documents.npy", allow_pickle=False)
    return Packed(ids, documents[:, 0], documents[:, 1], manifest["identity"])


def documents_hash(documents: Iterable[Document]) -> str:
    """One hash of the contents in order."""
    digest = hashlib.blake2b(digest_size=16)
    for document in documents:
        digest.update(document.key.encode())
    return digest.hexdigest()


def _write(documents: list[Document], tokens: Tokens, folder: Path, identity: Mapping[str, str]) -> Packed:
    dtype = np.dtype("<u2" if tokens.vocab_size <= 2**16 else "<u4")
    end, index, position = tokens.eos_id, np.zeros((len(documents), 2), dtype=np.int64), 1
    with writing(folder / "ids.bin", "wb") as file:
        file.write(np.array([end], dtype).tobytes())
        for row, (document, ids) in enumerate(zip(documents, _encode(documents, tokens), strict=True)):
            ids = ids[1:] if ids[:1] == [end] else ids  # the document before has ended
            ended = ids if ids[-1:] == [end] else [*ids, end]
            file.write(np.array(ended, dtype).tobytes())
            position += len(ended)
            index[row] = position, document.bytes
    with writing(folder / "documents.npy", "wb") as file:
        np.save(file, index, allow_pickle=False)
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "dtype": dtype.str, "identity": identity}
    manifest |= {"tokens": position, "documents": len(documents), "bytes": int(index[:, 1].sum())}
    names = ("ids.bin", "documents.npy")
    manifest["files"] = {n: {"bytes": (folder / n).stat().st_size, "sha256": hash_file(folder / n)} for n in names}
    write_json(folder / "manifest.json", manifest)
    return load(folder)


def _encode(documents: list[Document], tokens: Tokens) -> Iterator[list[int]]:
    """The ids of each document, texts in groups by the tokenizer's threads."""
    for start in range(0, len(documents), GROUP):
        group = documents[start : start + GROUP]
        texts = iter(tokens.encode_many([d.text for d in group if not d.messages]))
        yield from (tokens.encode_prompt(d.messages, generation=False) if d.messages else next(texts) for d in group)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise InputError(f"not a {FORMAT} folder of version {VERSION}", where=str(folder), then="pack the corpus again")
    return manifest


def _reusable(folder: Path, identity: Mapping[str, str]) -> bool:
    try:
        manifest = _manifest(folder)
    except InputError:
        return False
    return manifest["identity"] == identity and _whole(folder, manifest)


def _whole(folder: Path, manifest: Mapping[str, Any], hashes: bool = True) -> bool:
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return False
        if hashes and hash_file(path) != file["sha256"]:
            return False
    return True
