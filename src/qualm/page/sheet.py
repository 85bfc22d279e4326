"""A whole page: one file that loads nothing, with the style and the script that are in it and no other."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources

from qualm.page.markup import Child, Html, h

THEME = "qualm.page", "theme.css"  # colours, light and dark, and what all pages share
LANGUAGES = "qualm.page", "languages.css"  # of two that are written, the page shows one
SWITCH = "qualm.page", "switch.js"  # light or dark, English or Chinese, kept for the next page

Asset = tuple[str, str]  # the package, and the file in it


@dataclass(frozen=True)
class Sheet:
    """What stands in the head of a page; style and script are files of ours."""

    title: str
    generator: str
    style: Sequence[Asset]
    script: Sequence[Asset]
    language: str = "en"


def document(sheet: Sheet, *body: Child) -> str:
    style, script = (Html("".join(map(read, assets))) for assets in (sheet.style, sheet.script))
    head = h(
        "head",
        {},
        h("meta", {"charset": "utf-8"}),
        h("meta", {"http-equiv": "Content-Security-Policy", "content": policy(style, script)}),
        h("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        h("meta", {"name": "color-scheme", "content": "light dark"}),
        h("meta", {"name": "generator", "content": sheet.generator}),
        h("title", {}, sheet.title),
        h("style", {}, style),
    )
    whole = h("html", {"lang": sheet.language}, head, h("body", {}, body, h("script", {}, script)))
    return f"<!doctype html>\n{whole}\n"


def read(asset: Asset) -> str:
    package, name = asset
    return (resources.files(package) / name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """Nothing may be loaded, and of what is inline only this style and script, by their hashes."""
    allowed = {
        kind: b64encode(sha256(text.encode()).digest()).decode()
        for kind, text in (("style", style), ("script", script))
    }
    only = "; ".join(f"{kind}-src 'sha256-{digest}'" for kind, digest in allowed.items())
    return f"default-src 'none'; {only}; base-uri 'none'; form-action 'none'"
