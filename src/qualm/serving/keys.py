"""API keys: who may ask, for which models, how often. Only salted hashes of keys are kept, on disk and in memory.

A key made here holds 256 random bits, so a fast hash of it cannot be turned back by guessing.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qualm.config import build
from qualm.errors import InputError, UsageError
from qualm.files import read_json, write_json

SCHEMA = "qualm.keys/1"
PREFIX = "qk-"
LONGEST = 512  # characters of a key
SHORTEST = 8


@dataclass(frozen=True)
class Key:
    """One key: the name of its holder, its salt and hash in hex, and what it is good for.

    `models` are the names of those it may ask, () for all; `per_minute` how many requests, 0 for any number.
    """

    name: str
    salt: str
    hash: str
    models: tuple[str, ...] = ()
    per_minute: int = 0

    @classmethod
    def made(cls, name: str, key: str) -> "Key":
        salt = secrets.token_hex(16)
        return cls(name, salt, digest(key, salt))

    def fits(self, key: str) -> bool:
        return hmac.compare_digest(digest(key, self.salt), self.hash)

    def may_ask(self, model: str) -> bool:
        return not self.models or model in self.models


def digest(key: str, salt: str) -> str:
    return hashlib.blake2b(key.encode("utf-8", "replace"), salt=bytes.fromhex(salt), digest_size=32).hexdigest()


class Keys:
    """The keys of a server; none at all means that everyone may ask."""

    def __init__(self, keys: Iterable[Key] = ()):
        self.keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def holder(self, authorization: str) -> Key | None:
        """Whose key an Authorization header holds. All keys are compared, so that time tells nothing."""
        scheme, _, key = authorization.partition(" ")
        key = key.strip()[:LONGEST] if scheme.lower() == "bearer" else ""
        found = None
        for each in self.keys:
            found = each if each.fits(key) else found
        return found if key else None

    @classmethod
    def read(cls, path: Path | str) -> "Keys":
        """Raises InputError if the file is not what `add` writes."""
        found = read_json(path)
        entries = found.get("keys") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
        if not isinstance(entries, list):
            raise InputError(f"is not a {SCHEMA} file", where=str(path), then="make one: qualm serve --new-key NAME")
        return cls(_entry(entry, f"{path}: key {number}") for number, entry in enumerate(entries, 1))


def _entry(entry: Any, where: str) -> Key:
    try:
        key = build(Key, entry)
        whole = len(bytes.fromhex(key.hash)) == 32 and len(bytes.fromhex(key.salt)) == 16 and bool(key.name)
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"is damaged: {error}", where=where) from error
    if not whole:
        raise InputError("is damaged", where=where)
    return key


def given(key: str, per_minute: int = 0) -> Key:
    """A key that the user chose. Raises UsageError for one that is guessed at once, or too long."""
    if not SHORTEST <= len(key) <= LONGEST or key != key.strip():
        raise UsageError(
            f"a key has {SHORTEST} to {LONGEST} characters and no spaces around it",
            where="--api-key",
            then="or have one made: qualm serve --new-key NAME --keys FILE",
        )
    return replace(Key.made("default", key), per_minute=per_minute)


def add(path: Path | str, name: str, models: tuple[str, ...] = (), per_minute: int = 0) -> str:
    """Make a key, add its hash to the file, and give it back: it cannot be read again."""
    path = Path(path)
    keys = Keys.read(path).keys if path.exists() else ()
    if not name or any(each.name == name for each in keys):
        raise UsageError(f"{name!r} has a key already, or is no name", where=str(path), then="take another name")
    key = PREFIX + secrets.token_urlsafe(32)
    made = replace(Key.made(name, key), models=models, per_minute=per_minute)
    entries = [{**asdict(each), "models": list(each.models)} for each in (*keys, made)]
    write_json(path, {"schema": SCHEMA, "keys": entries})
    path.chmod(0o600)
    return key
