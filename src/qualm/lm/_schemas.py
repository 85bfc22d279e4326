"""JSON schemas made ready for the engine: said more strictly where it is more lenient than the standard, refused where
that cannot be said."""

import json
from collections.abc import Mapping
from typing import Any

from qualm.errors import UsageError

WHERE = "the JSON schema"
NONE = "no answer can have this shape"
NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}  # names to schemas
DATA = {"const", "enum", "default", "examples"}  # values, which may look like schemas
TIGHTER: Mapping[str, dict[str, Any]] = {
    "email": {"maxLength": 64},  # of the part before the @; RFC 5321, 4.5.3.1.1
    "date-time": {"pattern": "^.{17}[0-5]"},  # a leap second is one at midnight UTC only
    "time": {"pattern": "^.{6}[0-5]"},
}


def read_schema(text: str) -> dict[str, Any]:
    """A schema ready to be compiled. Raises UsageError that names what is wrong with it."""
    try:
        schema = json.loads(text)
        if not isinstance(schema, dict | bool):
            raise UsageError("is not a JSON object", where=WHERE)
        if schema is False:
            raise UsageError(NONE, where=WHERE)
        return {} if schema is True else tightened(schema, "#")
    except RecursionError as error:
        raise UsageError("is nested too deeply", where=WHERE) from error
    except ValueError as error:
        raise UsageError(f"cannot be read as JSON ({error})", where=WHERE) from error


def tightened(node: dict[str, Any], at: str) -> dict[str, Any]:
    """A schema, and those in it, such that what the engine writes is valid. `at` is its JSON pointer.

    A key may be written twice where any key will do, and counts once when the text is read: so only one key beyond the
    required ones can be demanded.
    """
    least, required = node.get("minProperties", 0), node.get("required", [])
    distinct = len(set(map(str, required))) if isinstance(required, list) else 0
    if isinstance(least, int) and least > distinct + 1:
        why = f"minProperties = {least} is not supported beyond one more than the required properties"
        raise UsageError(why, where=f"{WHERE} {at}")
    made = {key: inside(key, value, f"{at}/{key}") for key, value in node.items()}
    extra = TIGHTER.get(node["format"]) if isinstance(node.get("format"), str) else None
    return {**made, "allOf": [*made.get("allOf", []), extra]} if extra else made


def inside(key: str, value: Any, at: str) -> Any:
    """What stands under a key of a schema, the schemas in it tightened."""
    if key in DATA:
        return value
    if isinstance(value, list):
        return [inside("", one, f"{at}/{i}") for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if key in NAMED:
        return {name: inside("", one, f"{at}/{name}") for name, one in value.items()}
    return tightened(value, at)
