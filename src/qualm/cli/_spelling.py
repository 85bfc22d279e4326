"""What `qualm tokens` does, and how it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qualm.corpus.documents import read
from qualm.lm.base import LM
from qualm.lm.export import with_weights
from qualm.lm.extend import Change, change, extend_model
from qualm.text.parallel import language_of, two_languages
from qualm.tokens.extend import candidates, read_words
from qualm.tokens.measure import MOST_UNKNOWN, Measures, measure
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_tokens
from qualm.training.objectives import objective_of
from qualm.training.recipe import Recipe

Json = dict[str, Any]
SHOWN = ("de", "fr", "es", "ru", "ar", "hi", "zh", "ja", "ko", "th", "sw", "my")
DEAREST = 3  # locales that are shown besides
NOTE = "speed: the median of five encodings by all cores, beside whatever else this machine does"


def trained(source: str, output: Path, *, kind: str, vocab: int, family: str) -> tuple[Json, RenderableType]:
    """Learn a tokenizer for a family of models from a file or folder of text."""
    wanted = objective_of(Recipe(family=family))
    texts = (text for document in read(source) for text in document.contents)
    made = train_tokens(texts, vocab, kind, wanted.special, wanted.frame, wanted.mask)
    made.save(output)
    document = {"output": str(output), "kind": kind, "family": family, "vocabulary": made.vocab_size, "hash": made.hash}
    return document, str(output)


def measured(sources: Sequence[tuple[str, Tokens]], text: Sequence[Path]) -> tuple[Json, RenderableType]:
    """Measure tokenizers side by side."""
    texts = held_out(text)
    found = [(name, measure(tokens, [t for some in texts.values() for t in some])) for name, tokens in sources]
    document = {"texts": list(texts), "tokenizers": [{"name": name, **_told(read)} for name, read in found]}
    notes = [Text(f"on {' and '.join(texts)}: {found[0][1].bytes:,} bytes; {NOTE}", style="dim")]
    notes += [
        Text(f"{name} does not give back: {', '.join(what for what, back in read.back.items() if not back)}", "dim")
        for name, read in found
        if not all(read.back.values())
    ]
    return document, Group(_figures(found), Text(""), _languages(found), *notes)


def extended(
    lm: LM, output: Path, *, add: Path | None, from_text: Path | None, count: int, text: Sequence[Path]
) -> tuple[Json, RenderableType]:
    """Give a model new words, write it, and tell what that did to held-out text."""
    before = with_weights(lm)
    if add:
        words = read_words(add)
    else:
        given = (part for document in read(from_text or "") for part in document.contents)
        words = candidates(before.tokens, given, count)
    after, made = extend_model(lm, words)
    apart = {
        name: [line for t in texts for line in t.splitlines() if line.strip()] for name, texts in held_out(text).items()
    }
    changes = [change(before, after, name, lines) for name, lines in apart.items()]
    after.save(output)
    document = {
        "output": str(output),
        "words": dict(made.words),
        "vocabulary": made.tokens.vocab_size,
        "held_out": [asdict(each) for each in changes],
    }
    said = Text(f"{len(made.words)} words, {made.tokens.vocab_size} tokens: {output}")
    return document, Group(said, _changes(changes))


def held_out(files: Sequence[Path]) -> dict[str, list[str]]:
    """The user's texts, or a sample in two languages."""
    own = {str(file): [part for document in read(file) for part in document.contents] for file in files}
    return own or two_languages()


def _told(read: Measures) -> Json:
    summary = {"premium": read.premium, "premium_per_byte": read.premium_per_byte, "locales_spelled": len(read.read)}
    premiums = {locale: {**asdict(p), "per_byte": p.per_byte} for locale, p in read.premiums.items()}
    return {**asdict(read), **summary, "premiums": premiums}


def _figures(found: Sequence[tuple[str, Measures]]) -> Table:
    """A line a figure, a column a tokenizer."""
    table = _table("", *(name for name, _ in found))
    rows: Mapping[str, Any] = {
        "tokens in the vocabulary": lambda m: f"{m.vocabulary:,}",
        "of them used here": lambda m: f"{m.used:.1%}",
        "unknown characters": lambda m: f"{m.unknown:.2%}",
        "hard texts given back": lambda m: f"{sum(m.back.values())} of {len(m.back)}",
        "texts not given back": lambda m: f"{m.lost:.1%}",
        "tokens a character": lambda m: f"{m.per_character:.3f}",
        "tokens a word": lambda m: _or_dash(m.per_word),
        "tokens a byte": lambda m: f"{m.per_byte:.3f}",
        "words that are one token": lambda m: "-" if m.whole is None else f"{m.whole:.1%}",
        "Rényi efficiency": lambda m: f"{m.efficiency:.3f}",
        "languages it can spell": lambda m: f"{len(m.read)} of {len(m.premiums)}",
        "premium of other languages, median": lambda m: _or_dash(m.premium),
        "  byte premium divided out": lambda m: _or_dash(m.premium_per_byte),
        "MB a second": lambda m: f"{m.megabytes_a_second:.1f}",
    }
    for what, told in rows.items():
        table.add_row(what, *(told(read) for _, read in found))
    return table


def _languages(found: Sequence[tuple[str, Measures]]) -> Table:
    """Tokens for the same names as in English, and in brackets with the byte premium divided out."""
    table = _table("premium over English", "of bytes", *(name for name, _ in found))
    dearest = [premium.locale for _, read in found for premium in read.read[:DEAREST]]
    for locale in dict.fromkeys([*SHOWN, *dearest]):
        of_each = [read.premiums[locale] for _, read in found]
        told = (f"{p.tokens:.2f} ({p.per_byte:.2f})" if p.unknown <= MOST_UNKNOWN else "unknown" for p in of_each)
        table.add_row(language_of(locale), f"{of_each[0].bytes:.2f}", *told)
    return table


def _changes(changes: Sequence[Change]) -> Table:
    table = _table("held-out text", "tokens before", "after", "bits per byte before", "after")
    for each in changes:
        bits = [each.why, ""] if each.before is None else [_or_dash(each.before), _or_dash(each.after)]
        table.add_row(each.name, f"{each.tokens_before:,}", f"{each.tokens_after:,}", *bits)
    return table


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column is columns[0] else "right")
    return table
