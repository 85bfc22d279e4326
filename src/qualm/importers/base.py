"""What an importer is: it knows a format of others by its names and first bytes, and writes it as our model folder.

Nothing of what is read is ever run: no pickle, no code, no graph.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.files import hash_file, hash_json
from qualm.folder import write_folder
from qualm.models.base import Model
from qualm.tokens.tokenizer import Tokens

AGAIN = "take it again from where it came from"


class Importer(ABC):
    """A format that others write.

    `reads` names it for people. `version` goes up when what is written from the same bytes changes: models imported
    by an earlier version are then imported anew.
    """

    reads: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether the file or folder at `path` is of this format, by its names and first bytes alone.

        A damaged one is recognised too where it can be: `write` says what is wrong with it.
        """

    @abstractmethod
    def write(self, path: Path, folder: Path) -> None:
        """Write what is at `path` into a new folder as `save` does.

        Raises InputError naming the file and the field that is wrong.
        """

    def files(self, path: Path) -> list[Path]:
        """The files that decide what is written; by default the one, or all that lie in the folder."""
        return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())

    def hash(self, path: Path) -> str:
        """The same for the same bytes in files of the same names."""
        found = [[file.name, hash_file(file)] for file in self.files(path)]
        return hash_json([type(self).__name__, self.version, found])


def save(folder: Path, model: Model, tokens: Tokens, source: Mapping[str, Any]) -> None:
    """Write a model folder. `source` is what people should know of it: origin, licence, what was repaired."""
    write_folder(model, tokens, folder, {"source": dict(source)})


def floats(data: bytes, shape: tuple[int, ...], field: str, where: Path | str) -> Tensor:
    """Little-endian float32 numbers as a tensor of this shape. Raises InputError naming the field if they are not."""
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) != 4 * count:
        raise InputError(
            f"{field} should be {list(shape)}, {4 * count} bytes, and is {len(data)} bytes",
            where=str(where),
            then=AGAIN,
        )
    return checked(np.frombuffer(data, "<f4").reshape(shape), shape, field, where)


def checked(array: np.ndarray, shape: tuple[int, ...], field: str, where: Path | str) -> Tensor:
    """The numbers as a float32 tensor. Raises InputError naming the field if shape or kind is another, or one is NaN
    or infinite.
    """
    if array.shape != shape or array.dtype.kind != "f":
        raise InputError(
            f"{field} is {list(array.shape)} {array.dtype}, and should be {list(shape)} float32",
            where=str(where),
            then=AGAIN,
        )
    if not np.isfinite(array).all():
        raise InputError(f"{field} holds NaN or infinity", where=str(where), then=AGAIN)
    return torch.from_numpy(array.astype(np.float32))  # a copy: the bytes may be read-only
