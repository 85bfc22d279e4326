"""The same things named in many languages: places, languages and currencies of the Unicode Common Locale Data
Repository, through Babel. Names, not sentences: what they show of a language is how its script and words are cut.
"""

from collections.abc import Mapping
from functools import cache

from babel import Locale
from babel.localedata import locale_identifiers

from qualm.text import cldr, prose

KINDS = ("territories", "languages", "currencies")
FEWEST = 300  # names that a locale must have to be compared
SAMPLE = 24  # paragraphs of English, and five times as many Chinese sentences


@cache
def parallel_names(fewest: int = FEWEST) -> Mapping[str, Mapping[tuple[str, str], str]]:
    """Locale -> what is named (kind, code) -> its name there, of all locales that name at least `fewest` things which
    English names. A code that stands for a missing name is none; locales of one country only are left out, and those
    that say all as another does (zh_Hans as zh).
    """
    english = _names("en")
    found, seen = {"en": english}, {tuple(english.values())}
    for locale in sorted(locale_identifiers()):
        parsed = Locale.parse(locale)
        if parsed.territory or parsed.variant or locale == "en":
            continue
        names = {what: name for what, name in _names(locale).items() if what in english}
        if len(names) >= fewest and tuple(names.values()) not in seen:
            found[locale] = names
            seen.add(tuple(names.values()))
    return found


def _names(locale: str) -> dict[tuple[str, str], str]:
    parsed = Locale.parse(locale)
    every = ((kind, code, name) for kind in KINDS for code, name in getattr(parsed, kind).items())
    return {(kind, code): name for kind, code, name in every if isinstance(name, str) and name and name != code}


def language_of(locale: str) -> str:
    """The English name of a locale: "Chinese (Traditional)" for zh_Hant."""
    return Locale.parse(locale).get_display_name("en") or locale


def two_languages() -> dict[str, list[str]]:
    """Text that every installation carries: paragraphs of English prose, Chinese sentences on currencies."""
    facts = cldr.currencies("zh")[: 5 * SAMPLE]
    sentences = [f"{fact.name}的货币是{fact.value}。" for fact in facts]
    return {"English prose": list(prose.paragraphs()[:SAMPLE]), "Chinese sentences": sentences}
