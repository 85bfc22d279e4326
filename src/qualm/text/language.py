"""Which language a text is in, by py3langid: naive Bayes over byte n-grams (Lui and Baldwin 2012), 139 languages."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

UNKNOWN = "und"
_LETTERS = 12  # fewer than so many tell nothing
_PART = 300  # characters read at the beginning, in the middle and at the end


@cache
def _model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """(ISO 639 code, how sure from 0 to 1); ("und", 0.0) for a text with hardly a letter.

    Chinese is "zh" in either script. Long texts are read in three places.

    >>> identify("The weather was fine, so they walked home along the river.")[0], identify("12:30")
    ('en', ('und', 0.0))
    """
    if len(text) > 3 * _PART:
        middle = len(text) // 2 - _PART // 2
        text = f"{text[:_PART]}\n{text[middle : middle + _PART]}\n{text[-_PART:]}"
    letters = sum(2 if char > "\u2e7f" else 1 for char in text if char.isalpha())
    if letters < _LETTERS:
        return UNKNOWN, 0.0
    code, sure = _model().classify(text)
    return str(code), float(sure)
