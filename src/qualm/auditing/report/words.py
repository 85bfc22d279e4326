"""The language of a report. English is the key; another language is a dictionary from English."""

from functools import cache
from importlib import resources
from json import loads
from typing import Any

from qualm.errors import UsageError

LANGUAGES = ("en", "zh")


@cache
def _dictionary(language: str) -> dict[str, str]:
    if language == "en":
        return {}
    return loads((resources.files(str(__package__)) / f"{language}.json").read_text(encoding="utf-8"))


class Words:
    """`say("{n} cases", n=3)` in the language asked for; what the dictionary lacks stays English."""

    def __init__(self, language: str = "en"):
        if language not in LANGUAGES:
            raise UsageError(f"no report is written in {language!r}", then=f"there are: {', '.join(LANGUAGES)}")
        self.language = language
        self._own = _dictionary(language)

    def __call__(self, english: str, **values: Any) -> str:
        text = self._own.get(english, english)
        return text.format(**values) if values else text

    def count(self, n: int, one: str, more: str) -> str:
        """A count with its noun; the plural is the key for languages without one."""
        return self(one if n == 1 and self.language == "en" else more, n=f"{n:,}")
