"""Dataclasses from strings and JSON, and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qualm.config import build, to_dict
from qualm.errors import UsageError


@dataclass(frozen=True)
class Inner:
    top_k: int = 3
    name: str = "inner"


@dataclass(frozen=True)
class Settings:
    kind: ClassVar[str] = "no setting"
    steps: int = 10
    rate: float = 0.5
    on: bool = False
    title: str = "t"
    folder: Path = Path("here")
    words: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = None
    size: str | int = "tiny"
    tags: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    inner: Inner = Inner(top_k=7)
    other: Inner | None = None


@dataclass(frozen=True)
class Needy:
    path: Path
    n: int = 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "1_000", 1000),
        ("steps", "1e6", 1_000_000),
        ("steps", 12.0, 12),
        ("steps", "-3", -3),
        ("rate", "1e-3", 0.001),
        ("rate", 2, 2.0),
        ("on", "Yes", True),
        ("on", "0", False),
        ("title", "12", "12"),
        ("folder", "a/b", Path("a/b")),
        ("words", "a, b,c", ("a", "b", "c")),
        ("words", ["a", "b"], ("a", "b")),
        ("words", "", ()),
        ("pair", "3,0.5", (3, 0.5)),
        ("mode", "slow", "slow"),
        ("limit", "none", None),
        ("limit", "5", 5),
        ("size", "1e7", 10_000_000),
        ("size", "small", "small"),
        ("tags", "b,a", frozenset({"a", "b"})),
        ("extra", {"x": 1}, {"x": 1}),
    ],
)
def test_values_are_read_as_the_type_asks(name, text, value):
    read = getattr(build(Settings, {name: text}), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": "1.5"}, "Settings.steps"),
        ({"steps": "many"}, "a whole number"),
        ({"steps": True}, "Settings.steps"),
        ({"rate": "nan"}, "Settings.rate"),
        ({"rate": "1e999"}, "Settings.rate"),
        ({"rate": None}, "Settings.rate"),
        ({"on": "perhaps"}, "true or false"),
        ({"on": 1}, "Settings.on"),
        ({"title": 3}, "Settings.title"),
        ({"folder": 3}, "Settings.folder"),
        ({"words": 3}, "Settings.words"),
        ({"words": [1]}, "Settings.words"),
        ({"pair": "1"}, "a list of 2"),
        ({"mode": "slwo"}, "did you mean 'slow'"),
        ({"limit": "x"}, "a whole number or none"),
        ({"inner.top_k": "x"}, "Settings.inner.top_k"),
        ({"inner": 3}, "Settings.inner"),
        ({"extra": 3}, "Settings.extra"),
    ],
)
def test_a_wrong_type_names_the_field_and_what_it_should_be(settings, named):
    with pytest.raises(UsageError) as error:
        build(Settings, settings)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stesp": 1}, "did you mean 'steps'?"),
        ({"inner.topk": 1}, "did you mean 'top_k'?"),
        ({"kind": "x"}, "no setting 'kind'"),
        ({"inner.top_k.x": 1}, "inner"),
        ({"steps.x": 1}, "Settings.steps"),
        ({"inner.top_k": 1, "inner": Inner()}, "by its parts"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(settings, named):
    with pytest.raises(UsageError) as error:
        build(Settings, settings)
    assert named in str(error.value)
    assert error.value.exit_code == 2


def test_dotted_keys_keep_the_rest_of_the_nested_default():
    assert build(Settings, {"inner.name": "n"}).inner == Inner(top_k=7, name="n")
    assert build(Settings, {"inner": {"name": "n"}}).inner == Inner(top_k=7, name="n")
    assert build(Settings, {"other.top_k": "4"}).other == Inner(top_k=4)
    assert build(Settings, {"other": None}).other is None
    assert build(Settings, {"inner": {"name": "n"}, "inner.top_k": 2}).inner == Inner(2, "n")


def test_a_missing_value_is_named():
    with pytest.raises(UsageError, match="needs a value for 'path'"):
        build(Needy, {"n": 2})


@given(
    steps=st.integers(),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    words=st.lists(st.text(), max_size=4),
    top_k=st.integers(),
    limit=st.none() | st.integers(),
)
def test_what_is_written_as_json_builds_the_same_again(steps, rate, words, top_k, limit):
    settings = Settings(
        steps=steps, rate=rate, words=tuple(words), inner=Inner(top_k), limit=limit, tags=frozenset("ab")
    )
    assert build(Settings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_what_json_cannot_say_is_refused():
    with pytest.raises(TypeError, match="no setting"):
        to_dict({"x": object()})
