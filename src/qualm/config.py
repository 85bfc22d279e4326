"""The dataclass is the config: built from strings or JSON by its type hints, and written back as JSON.

`build(Settings, {"lr": "1e-3", "decode.top_k": 5})` gives the instance that `to_dict` turns into JSON again.
"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from qualm.errors import UsageError

T = TypeVar("T")

WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class _Wrong(Exception):
    """A value that does not fit a type hint; says what would."""


def build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls`, each value coerced by its field's type hint.

    Strings are read as the type asks ("1_000" and "1e6" as int, "a,b" as tuple, "none" as None); a dotted key
    sets a field of a nested dataclass and leaves its other fields at their defaults.
    Raises UsageError naming the field for an unknown key (with the nearest name), a wrong type or a missing value.
    """
    return _build(cls, settings, f"{cls.__name__}.")


def to_dict(value: Any) -> Any:
    """A dataclass as JSON-able values: tuples and sets as lists (sets sorted), paths as strings, nested by field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, Set):
        return sorted(to_dict(v) for v in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_dict(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no setting: {value!r}")


def _build(cls: type[T], settings: Mapping[str, Any], prefix: str) -> T:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in _nested(settings, prefix).items():
        if name not in fields:
            raise UsageError(f"{prefix[:-1]} has no setting {name!r}", then=_nearest(name, fields))
        inner = _dataclass_in(hints[name])
        if inner and isinstance(value, Mapping):
            values[name] = _build(inner, {**_defaults(fields[name]), **value}, f"{prefix}{name}.")
            continue
        try:
            values[name] = _coerce(value, hints[name])
        except _Wrong as wrong:
            raise UsageError(f"must be {wrong}, not {value!r}", where=prefix + name) from None
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UsageError(f"{prefix[:-1]} needs a value for {name!r}", then=f"give {name}=...")
    return cls(**values)


def _nested(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Dotted keys as nested mappings: {"a.b": 1, "c": 2} -> {"a": {"b": 1}, "c": 2}."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        head, dot, rest = key.partition(".")
        if not dot:
            if isinstance(tree.get(head), dict) and isinstance(value, Mapping):
                value = {**value, **tree[head]}
            elif head in tree:
                raise UsageError(f"{prefix}{head} is given both whole and by its parts", then="give one of them")
            tree[head] = value
            continue
        branch = tree.setdefault(head, {})
        if not isinstance(branch, Mapping):
            raise UsageError(f"{prefix}{head} is given both whole and by its parts", then="give one of them")
        tree[head] = {**branch, rest: value}
    return tree


def _defaults(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    """The fields of a nested dataclass's default instance, or {} if it has none."""
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        return {}
    return {f.name: getattr(default, f.name) for f in dataclasses.fields(default) if f.init}


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass a hint names, alone or beside None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"


def _coerce(value: Any, hint: Any) -> Any:
    """`value` as what `hint` asks for; raises _Wrong saying what that is."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, args)
    if origin is Literal:
        return _coerce_literal(value, args)
    if hint in SCALARS:
        return SCALARS[hint](value)
    kind = origin or hint
    if not isinstance(kind, type):
        return value
    if kind in (tuple, list, set, frozenset, Sequence, Iterable):
        return _coerce_sequence(value, kind, args)
    if isinstance(value, kind):
        return value
    raise _Wrong(f"a {kind.__name__}")


def _coerce_union(value: Any, options: tuple[Any, ...]) -> Any:
    if types.NoneType in options and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    wanted = []
    for option in sorted((o for o in options if o is not types.NoneType), key=lambda o: o is str):
        try:
            return _coerce(value, option)
        except _Wrong as wrong:
            wanted.append(str(wrong))
    raise _Wrong(" or ".join([*wanted, *(["none"] if types.NoneType in options else [])]))


def _coerce_literal(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if (value == option and type(value) is type(option)) or (isinstance(value, str) and value == str(option)):
            return option
    near = get_close_matches(str(value), [str(o) for o in options], 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise _Wrong(f"one of {', '.join(map(repr, options))}{hint}")


def _coerce_sequence(value: Any, kind: type, args: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (Sequence, Set)):
        raise _Wrong("a list")
    make = kind if kind in (tuple, list, set, frozenset) else tuple
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _Wrong(f"a list of {len(args)}")
        return tuple(_coerce(v, a) for v, a in zip(value, args, strict=True))
    return make(_coerce(v, args[0] if args else Any) for v in value)


def _int(value: Any) -> int:
    number = _number(value, "a whole number")
    if number != int(number):
        raise _Wrong("a whole number")
    return int(number)


def _float(value: Any) -> float:
    return float(_number(value, "a number"))


def _number(value: Any, wanted: str) -> int | float:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise _Wrong(wanted) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Wrong(wanted)
    return value


def _bool(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in WORDS:
        return WORDS[value.lower()]
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("a text")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise _Wrong("a path")
    return Path(value)


SCALARS = {int: _int, float: _float, bool: _bool, str: _str, Path: _path}
