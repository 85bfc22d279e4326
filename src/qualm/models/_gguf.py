"""The GGUF container: metadata and tensors of a file that may be cut off, damaged or hostile.

Format: ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian. Every length is checked against the file's before
it is used, so reading takes time and memory in proportion to the file.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from qualm.errors import InputError

AGAIN = "copy or download it again"
MOST = 2**24  # entries of one list or table; the largest vocabulary in use has 2**18
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, FLOAT32 = 8, 9, 6


@dataclass(frozen=True)
class Entry:
    """A tensor in the file: shape in torch's order, kind of quantisation, and its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


class Cursor:
    """Reads forward through the file's bytes. Raises InputError where it ends too soon."""

    def __init__(self, path: Path):
        self.where = str(path)
        self.size = path.stat().st_size
        self.bytes = np.memmap(path, np.uint8, "r") if self.size else np.zeros(0, np.uint8)
        self.view = self.bytes.data
        self.at = 0

    def damaged(self, what: str) -> InputError:
        return InputError(f"is damaged: {what}", where=self.where, then=AGAIN)

    def need(self, count: int) -> None:
        """Raises InputError if fewer than `count` bytes are left."""
        missing = self.at + count - self.size
        if missing > 0:
            raise InputError(
                f"is cut off: at least {missing} bytes are missing after {self.size}", where=self.where, then=AGAIN
            )

    def number(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        self.need(size)
        (value,) = struct.unpack_from(f"<{form}", self.view, self.at)
        self.at += size
        return value

    def count(self, smallest: int, what: str) -> int:
        """A count of things that take `smallest` bytes each."""
        value = self.number("Q")
        if value > MOST:
            raise self.damaged(f"{value} {what}")
        self.need(value * smallest)
        return value

    def string(self) -> str:
        size = self.number("Q")
        self.need(size)
        self.at += size
        return bytes(self.view[self.at - size : self.at]).decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.number("I")
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in SCALARS:
            raise self.damaged(f"a value of kind {kind}")
        value = self.number(SCALARS[kind])
        return float(str(np.float32(value))) if kind == FLOAT32 else value  # 1e-05, not 9.999999747378752e-06

    def array(self) -> list[Any]:
        kind = self.number("I")
        if kind == STRING:
            return [self.string() for _ in range(self.count(8, "strings"))]
        if kind not in SCALARS:
            raise self.damaged(f"a list of kind {kind}")
        form = np.dtype(SCALARS[kind]).newbyteorder("<")
        count = self.count(form.itemsize, "numbers")
        self.at += count * form.itemsize
        return np.frombuffer(self.view, form, count, self.at - count * form.itemsize).tolist()


class GgufFile:
    """`metadata` (numbers, strings and lists by key) and `entries` (tensors by name) of a file that is whole."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError("no such file", where=str(path), then="name a .gguf file")
        self.cursor = Cursor(path)
        tensors, keys = self._start()
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.cursor.string()
            self.metadata[key] = self.cursor.value()
        found = [self._entry() for _ in range(tensors)]
        self.entries = {entry.name: entry for entry in found}
        if len(self.entries) < len(found):
            raise self.cursor.damaged("two tensors of one name")
        self._place(found)

    def _start(self) -> tuple[int, int]:
        """How many tensors and keys follow."""
        cursor = self.cursor
        if bytes(cursor.view[:4]) != b"GGUF"[: cursor.size]:
            raise InputError("is not a GGUF file", where=cursor.where, then="name a .gguf file or a model folder")
        cursor.at = 4
        version = cursor.number("I")
        if version not in (2, 3):
            raise InputError(
                f"GGUF version {version} cannot be read (only 2 and 3, little-endian)",
                where=cursor.where,
                then="convert it with a current llama.cpp",
            )
        return cursor.count(24, "tensors"), cursor.count(13, "keys")

    def _entry(self) -> Entry:
        cursor = self.cursor
        name = cursor.string()
        dimensions = cursor.number("I")
        if not 1 <= dimensions <= 4:
            raise cursor.damaged(f"tensor {name!r} of {dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
        code, start = cursor.number("I"), cursor.number("Q")
        try:
            kind = GGMLQuantizationType(code)
        except ValueError as error:
            raise self._unread(name, str(code)) from error
        block, size = GGML_QUANT_SIZES[kind]
        if not all(shape) or shape[-1] % block:
            raise cursor.damaged(f"tensor {name!r} of shape {list(shape)} in blocks of {block}")
        return Entry(name, shape, kind, start, prod(shape) // block * size)

    def _place(self, found: list[Entry]) -> None:
        """Turn offsets into places in the file. Raises InputError if the file is too short for its tensors."""
        cursor = self.cursor
        step = self.metadata.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise cursor.damaged(f"general.alignment = {step!r}")
        data = -(-cursor.at // step) * step
        missing = max((data + e.start + e.size for e in found), default=0) - cursor.size
        if missing > 0:
            raise InputError(
                f"is cut off: {missing} bytes are missing after {cursor.size}", where=cursor.where, then=AGAIN
            )
        if found and sum(e.size for e in found) > cursor.size - data:
            raise cursor.damaged("tensors that overlap")
        self.entries = {e.name: Entry(e.name, e.shape, e.kind, data + e.start, e.size) for e in found}

    def _unread(self, name: str, kind: str) -> InputError:
        return InputError(
            f"tensor {name!r} is quantised as {kind}, which cannot be read",
            where=self.cursor.where,
            then="take the F16, Q8_0, Q6_K, Q4_K, Q4_1 or Q4_0 file of this model",
        )

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32. Raises InputError if its kind of quantisation is not known."""
        entry = self.entries[name]
        block, size = GGML_QUANT_SIZES[entry.kind]
        stored = self.cursor.bytes[entry.start : entry.start + entry.size]
        stored = np.asarray(stored).reshape(*entry.shape[:-1], entry.shape[-1] // block * size)
        try:
            with np.errstate(all="ignore"):
                values = dequantize(stored, entry.kind)
        except NotImplementedError as error:
            raise self._unread(name, entry.kind.name) from error
        return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
