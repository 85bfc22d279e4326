"""Personal data as Microsoft's Presidio finds it (extra `presidio`), with a model of spaCy's that the user names.

It looks beside `personal`, for what that leaves: above all names and places that a model recognises by their sentence.
Nothing is fetched: the model is installed, or lies in a folder.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from qualm.errors import InputError, MissingExtra

KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "CARD",
    "IP_ADDRESS": "IP",
    "PHONE_NUMBER": "PHONE",
    "PERSON": "NAME",
    "LOCATION": "ADDRESS",
    "URL": "URL",
}  # Presidio's kind -> ours; its passports and numbers of persons end in _PASSPORT, and in one of IDS
IDS = ("_SSN", "_NHS", "_NIF", "_NIE", "_TFN", "_ABN", "_AADHAAR", "_PAN", "_FISCAL_CODE", "_PESEL", "_ITIN", "_CARD")
LEAST = 0.4  # of its score: a number of the right shape alone is below


def spans(text: str, model: str, kinds: tuple[str, ...]) -> Iterator[tuple[str, int, int, str]]:
    """(kind, start, end, value) of what it finds, of these kinds, the surest first.

    Raises MissingExtra without Presidio, InputError if spaCy has no such model.
    """
    found = _analyser(model).analyze(text, language="en", score_threshold=LEAST)
    for result in sorted(found, key=lambda each: (-each.score, each.start)):
        kind = _kind(result.entity_type)
        if kind in kinds:
            yield kind, result.start, result.end, " ".join(text[result.start : result.end].casefold().split())


def _kind(theirs: str) -> str | None:
    if theirs.endswith("_PASSPORT"):
        return "PASSPORT"
    return KINDS.get(theirs) or ("ID" if theirs.endswith(IDS) else None)


@cache
def _analyser(model: str) -> Any:
    try:
        import spacy  # noqa: PLC0415  # pyrefly: ignore[missing-import]
        import tldextract  # noqa: PLC0415  # pyrefly: ignore[missing-import]
        from presidio_analyzer import AnalyzerEngine  # noqa: PLC0415  # pyrefly: ignore[missing-import]
        from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: PLC0415  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise MissingExtra("Presidio is not installed", then="pip install 'qualm-lm[presidio]'") from error
    try:
        spacy.load(model)  # Presidio would fetch one that is not there
    except OSError as error:
        told = f"python -m spacy download {model}, or the folder of a model"
        raise InputError("spaCy has no such model", where=model, then=told) from error
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())  # else it asks the network
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    engine = NlpEngineProvider(nlp_configuration=settings).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
