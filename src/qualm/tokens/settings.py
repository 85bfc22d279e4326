"""What the files beside a tokenizer say of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qualm.errors import InputError
from qualm.files import read_json

NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")

T = TypeVar("T")


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json, spellings as strings; chat_template.jinja over both."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read = read_json(folder / name)
            if not isinstance(read, dict):
                raise InputError("is not a JSON object", where=str(folder / name))
            settings |= read
    settings.pop("auto_map", None)
    for name in NAMES:
        spelled = settings.get(name)
        settings[name] = spelled.get("content") if isinstance(spelled, dict) else spelled
        if settings[name] is not None and not isinstance(settings[name], str):
            raise InputError(f"{name} is not a string", where=str(folder / "tokenizer_config.json"))
        settings[name] = settings[name] or ""
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if not isinstance(template, str | None):
        raise InputError("chat_template is not a string", where=str(folder / "tokenizer_config.json"))
    settings["chat_template"] = template
    if (folder / "chat_template.jinja").is_file():
        settings["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return settings


def read_ends(folder: Path) -> tuple[int, ...]:
    """The ids that generation_config.json names as ends: chat models often have several."""
    file = folder / "generation_config.json"
    read = read_json(file) if file.is_file() else {}
    ends = read.get("eos_token_id") if isinstance(read, dict) else None
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ends):
        raise InputError("eos_token_id is not a token id, nor a list of them", where=str(file))
    return tuple(ends)


def whole(build: Callable[[], T], where: Path | str) -> T:
    """Run what may fail inside the Rust library. Raises InputError naming the file.

    A Rust panic comes up as `PanicException`, which is no `Exception`.
    """
    try:
        return build()
    except InputError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise InputError(f"not a usable tokenizer ({error})", where=str(where)) from error
        raise
