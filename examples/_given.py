"""What the examples share: their arguments, and text that every machine has."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from babel import Locale


def arguments(doc: str) -> argparse.Namespace:
    """`data` (None without one), `output` and `quick`, as `doc` tells them."""
    name = Path(doc.split("python examples/")[1].split()[0]).stem
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="your own in place of what is on this machine")
    parser.add_argument("--output", type=Path, default=Path("runs") / name, help="the folder that becomes the model")
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that it runs")
    return parser.parse_args()


def python_manual(given: argparse.Namespace, articles: int = 79) -> Path:
    """Your text, or what Python's own help() says of the language: 79 articles, 600 kB of English and code."""
    rows = [{"text": text} for _, text in sorted(topics.items())]
    return given.data or written(given.output / "text.jsonl", rows[: 12 if given.quick else articles])


def names(language: str) -> dict[tuple[str, str], str]:
    """What this language calls countries, languages, scripts and currencies: Unicode's CLDR, which Babel brings."""
    locale = Locale(language)
    kinds = ("territories", "languages", "scripts", "currencies")
    return {(kind, code): name for kind in kinds for code, name in getattr(locale, kind).items()}


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A .jsonl file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
