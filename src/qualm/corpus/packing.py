"""Documents as token ids in shards on disk, cut into rows of a fixed length when they are read.

A packed folder holds shards, `ids-00000.bin` and on (ids end to end, little-endian uint16 or uint32), beside each a
`documents-00000.npy` (per document: where it ends in its shard, and its UTF-8 bytes), and `manifest.json` (counts and
SHA-256 hashes, written last). Shards are mapped, not read, and stand for one long array: an end token, then each
document followed by one. Because an end token stands first, every token of every document is predicted once, and bits
per byte = nats / ln 2 / bytes holds exactly. Any number of processes may read one folder.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qualm.corpus.documents import Document
from qualm.corpus.shards import Shards
from qualm.errors import InputError
from qualm.files import hash_file, read_json, write_json, writing
from qualm.tokens.fast import encoder
from qualm.tokens.tokenizer import Tokens

FORMAT, VERSION = "qualm.packed", 2
SHARD = 64 * 2**20  # bytes of text in a shard
GROUP = 256  # documents tokenised at once


@dataclass(frozen=True)
class Packed:
    """`ids` (N,) mapped; `ends` (documents,) where each document ends; `sizes` (documents,) their bytes.

    `identity` names what it was made from: the hash of the documents in order, and of the tokenizer.
    """

    ids: np.ndarray | Shards
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
    identity = identity_of(documents_hash(kept), tokens)
    if _reusable(folder, identity):
        return load(folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    shards = [
        write_shard(folder, number, kept[start:end], tokens)
        for number, (start, end) in enumerate(stretches([document.bytes for document in kept]))
    ]
    return finish(folder, shards, identity, tokens)


def identity_of(documents: str, tokens: Tokens) -> dict[str, str]:
    return {"documents": documents, "tokenizer": tokens.hash, "template": tokens.template_hash}


def stretches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, one after the last) of stretches of about SHARD bytes."""
    start = total = 0
    for number, size in enumerate(sizes):
        total += size
        if total >= SHARD:
            yield start, number + 1
            start, total = number + 1, 0
    if start < len(sizes):
        yield start, len(sizes)


def write_shard(folder: Path, number: int, documents: Iterable[Document], tokens: Tokens) -> dict[str, Any]:
    """Write one shard; returns what the manifest says of it. The first one begins with an end token."""
    if tokens.eos_id is None:
        raise InputError("the tokenizer has no end token", where=tokens.where, then="name one as eos_token")
    dtype, end = dtype_of(tokens), tokens.eos_id
    ids_file, documents_file = folder / f"ids-{number:05d}.bin", folder / f"documents-{number:05d}.npy"
    ends, sizes, position = list[int](), list[int](), 0
    with writing(ids_file, "wb") as file:
        if number == 0:
            position = file.write(np.array([end], dtype).tobytes()) // dtype.itemsize
        for document, ids in _encode(documents, tokens):
            ids = ids[1:] if len(ids) and ids[0] == end else ids  # the document before has ended
            ended = ids if len(ids) and ids[-1] == end else np.append(ids, end)
            position += file.write(ended.astype(dtype).tobytes()) // dtype.itemsize
            ends.append(position)
            sizes.append(document.bytes)
    with writing(documents_file, "wb") as file:
        np.save(file, np.array([ends, sizes], np.int64).T, allow_pickle=False)
    names = (ids_file, documents_file)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in names}
    return {"tokens": position, "documents": len(ends), "bytes": sum(sizes), "files": files}


def finish(folder: Path, shards: Sequence[Mapping[str, Any]], identity: Mapping[str, str], tokens: Tokens) -> Packed:
    """Write the manifest of a folder whose shards are there, and open it."""
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "dtype": dtype_of(tokens).str}
    manifest |= {"identity": identity, **{n: sum(s[n] for s in shards) for n in ("tokens", "documents", "bytes")}}
    write_json(folder / "manifest.json", {**manifest, "shards": list(shards)})
    return load(folder)


def load(folder: Path | str) -> Packed:
    """Open a packed folder. Raises InputError if it is missing, of another version, or cut short."""
    folder = Path(folder)
    manifest = _manifest(folder)
    if not _whole(folder, manifest, hashes=False):
        raise InputError("packed files are missing or cut short", where=str(folder), then="pack the corpus again")
    ids, ends, sizes, before = list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), 0
    for shard in manifest["shards"]:
        ids_file, documents_file = (folder / name for name in shard["files"])
        ids.append(np.memmap(ids_file, dtype=np.dtype(manifest["dtype"]), mode="r"))
        documents = np.load(documents_file, allow_pickle=False)
        ends.append(documents[:, 0] + before)
        sizes.append(documents[:, 1])
        before += len(ids[-1])
    together = ids[0] if len(ids) == 1 else Shards(ids)
    return Packed(together, np.concatenate(ends), np.concatenate(sizes), manifest["identity"])


def check(folder: Path | str) -> None:
    """Raises InputError if a file of a packed folder is not what its manifest says."""
    folder = Path(folder)
    if not _whole(folder, _manifest(folder)):
        raise InputError("packed files are damaged", where=str(folder), then="pack the corpus again")


def documents_hash(documents: Iterable[Document]) -> str:
    """One hash of the contents in order."""
    return hash_keys(document.key for document in documents)


def hash_keys(keys: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for key in keys:
        digest.update(key.encode())
    return digest.hexdigest()


def dtype_of(tokens: Tokens) -> np.dtype:
    return np.dtype("<u2" if tokens.vocab_size <= 2**16 else "<u4")


def _encode(documents: Iterable[Document], tokens: Tokens) -> Iterator[tuple[Document, np.ndarray]]:
    """Each document with its ids, texts in groups by the tokenizer's threads."""
    encode, rest = encoder(tokens), iter(documents)
    while group := list(islice(rest, GROUP)):
        texts = iter(encode([d.text for d in group if not d.messages]))
        for d in group:
            yield d, np.array(tokens.encode_prompt(d.messages, generation=False)) if d.messages else next(texts)


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
    for shard in manifest["shards"]:
        for name, file in shard["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                return False
            if hashes and hash_file(path) != file["sha256"]:
                return False
    return True
