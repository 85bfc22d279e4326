"""HTML as function calls. Text is escaped unless it is already `Html`, and what could run or load cannot be written."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import TypeAlias

VOID = {"meta", "br", "hr", "col", "wbr"}


class Html(str):
    """A string that is markup already; everything else is text and gets escaped."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attributes = Mapping[str, str | int | float | bool | None]


def join(children: Iterable[Child]) -> Html:
    """Escape the strings, keep the markup, flatten the lists, drop None."""
    return Html("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    return escape(child) if isinstance(child, str) else join(child)


def h(tag: str, attributes: Attributes | None = None, *children: Child) -> Html:
    """`<tag attributes>children</tag>`; an attribute that is None or False is left out, True stands bare.

    Raises ValueError for what a report never needs: event handlers, inline styles, and links that leave the page.
    """
    words = [tag]
    for name, value in (attributes or {}).items():
        if value is None or value is False:
            continue
        if name == "style" or name.startswith("on") or (name in {"href", "src"} and not str(value).startswith("#")):
            raise ValueError(f"the page may not hold {name}={value!r}")
        words.append(name if value is True else f'{name}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if tag in VOID else f"{opening}{join(children)}</{tag}>")


def both(english: Child, chinese: Child, tag: str = "span") -> list[Html]:
    """A text in both languages; the page shows one."""
    return [h(tag, {"lang": "en"}, english), h(tag, {"lang": "zh"}, chinese)]
