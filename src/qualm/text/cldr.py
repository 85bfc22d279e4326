"""Facts about the real world that anybody can check offline: the Unicode Common Locale Data Repository, through Babel.

Currencies and official languages of territories, in English or in Chinese.
"""

from dataclasses import dataclass
from functools import cache

from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

NOT_PLACES = {"EU", "EZ", "UN", "XA", "XB", "ZZ", "QO"}  # unions, pseudo-locales and the unknown


@dataclass(frozen=True)
class Fact:
    """One checkable fact. `also` are other right answers, `rivals` are wrong ones that contain a right one."""

    territory: str
    name: str
    kind: str  # "currency" or "language"
    value: str
    also: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()


@cache
def currencies(locale: str = "en") -> tuple[Fact, ...]:
    """Territories with one legal tender, e.g. Japan -> Japanese Yen (also: yen, JPY; no rival yen)."""
    names = Locale.parse(locale).currencies
    found = []
    for code, territory in _territories(locale).items():
        tender = get_territory_currencies(code)
        if len(tender) != 1 or tender[0] not in names:
            continue
        value = names[tender[0]]
        unit = value.split()[-1]
        rivals = tuple(sorted({n for n in names.values() if n != value and n.split()[-1] == unit and " " in n}))
        found.append(Fact(code, territory, "currency", value, (unit, tender[0]), rivals))
    return tuple(found)


@cache
def languages(locale: str = "en") -> tuple[Fact, ...]:
    """Territories with exactly one official language, e.g. Brazil -> Portuguese."""
    names = Locale.parse(locale).languages
    found = []
    for code, territory in _territories(locale).items():
        official = get_official_languages(code)
        if len(official) == 1 and official[0] in names:
            found.append(Fact(code, territory, "language", names[official[0]]))
    return tuple(found)


def _territories(locale: str) -> dict[str, str]:
    names, known = Locale.parse(locale).territories, get_global("territory_currencies")
    return {c: names[c] for c in sorted(known) if len(c) == 2 and c.isalpha() and c not in NOT_PLACES and c in names}
