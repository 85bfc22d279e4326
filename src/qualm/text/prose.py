"""Real English prose that every Python installation carries: the language reference that `help()` shows."""

import re
from functools import cache
from pydoc_data import topics


@cache
def paragraphs(shortest: int = 300, longest: int = 900) -> tuple[str, ...]:
    """Paragraphs of running text (no code, no grammar, no lists), by length in characters, in a fixed order."""
    found = []
    for name in sorted(topics.topics):
        for block in re.split(r"\n\s*\n", topics.topics[name]):
            text = " ".join(block.split())
            if shortest <= len(text) <= longest and not block.startswith((" ", "*", "-")) and _prose(text):
                found.append(text)
    return tuple(dict.fromkeys(found))


def _prose(text: str) -> bool:
    letters = sum(char.isalpha() or char.isspace() for char in text)
    return letters > 0.9 * len(text) and text.endswith(".") and "::" not in text
