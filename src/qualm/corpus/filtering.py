"""Filter: documents that are of no use are dropped, each with its reason; the first that applies is told."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from qualm.corpus.documents import Document, read
from qualm.corpus.notes import Tell, dropped, silent, whole
from qualm.corpus.settings import Filtering, Keeping
from qualm.errors import InputError
from qualm.text import classifier, quality, toxic
from qualm.text.grams import words
from qualm.text.language import identify


def filter_(
    documents: Iterable[Document], settings: Filtering = Filtering(), tell: Tell = silent
) -> Iterator[Document]:
    """The documents to keep, in order, unchanged.

    Raises InputError if the examples of good and bad cannot be read, or hold no text.
    """
    model = trained(settings.good, settings.bad) if settings.good and settings.bad else None
    for document in documents:
        if why := reason(document, settings, model):
            tell(dropped("filter", document, *why))
        else:
            yield document


def trained(good: Path, bad: Path) -> classifier.Classifier:
    """A classifier of what is good, by examples in two files or folders."""
    examples = [[whole(document) for document in read(path)] for path in (good, bad)]
    for path, texts in zip((good, bad), examples, strict=True):
        if len(texts) < 2:
            raise InputError("a single example teaches nothing", where=str(path), then="give some dozens")
    return classifier.train(*examples)


def reason(
    document: Document, settings: Filtering, model: classifier.Classifier | None = None
) -> tuple[str, str] | None:
    """(reason, detail) for which a document is dropped, or None."""
    if settings.licences and (why := _licence(document, settings)):
        return "licence", why
    text = whole(document)
    size = len(words(text))
    if not settings.shortest <= size <= settings.longest:
        return "length", f"{size} words"
    language, sure = identify(text) if settings.languages or settings.rules else ("", 0.0)
    if settings.languages and (language not in settings.languages or sure < settings.sure):
        return "language", f"{language} {sure:.2f}"
    if settings.rules and (broken := quality.faults(text, language)):
        return "rules", "; ".join(broken)
    if settings.toxic and len(found := toxic.lines(text)) >= settings.toxic:
        return "toxic", f"{len(found)} lines"
    if model and (likely := model.probability(text)) < settings.threshold:
        return "classifier", f"good with probability {likely:.3f}"
    return None


def keep(documents: Iterable[Document], settings: Keeping, tell: Tell = silent) -> Iterator[Document]:
    """The documents of which a function says True, in order."""
    for document in documents:
        verdict = settings.keep(document)
        if verdict is True:
            yield document
        else:
            tell(dropped("keep", document, "predicate", verdict or ""))


def _licence(document: Document, settings: Filtering) -> str:
    held = document.meta.get(settings.licence_field)
    allowed = {licence.casefold() for licence in settings.licences}
    if isinstance(held, str) and held.strip().casefold() in allowed:
        return ""
    return str(held)[:80] if held else f"no {settings.licence_field}"
