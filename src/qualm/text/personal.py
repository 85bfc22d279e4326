"""Personal data in a text, found by pattern, checksum and context: English, Chinese and common European forms.

Patterns read a shadow of the text in which zero-width characters are gone and digits, letters, dashes and spaces are
plain, so that disguises do not hide a value; spans are those of the text itself. No pattern repeats a repetition
without a bound, so the time is linear in the length. What is *not* looked for: dates of birth, and numbers without a
checksum, a known shape or a word before them that says what they are; names of persons only where they are asked for.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

from qualm.text import personal_checks as checks
from qualm.text import personal_places as places
from qualm.text import presidio

KINDS = (
    "URL",
    "EMAIL",
    "IBAN",
    "ID",
    "CARD",
    "IP",
    "PASSPORT",
    "ADDRESS",
    "PHONE",
    "NAME",
)  # of two, the earlier counts
USUAL = KINDS[:-1]  # names of persons stand in every novel and in all news
REACH = 40  # characters before a number in which a word may say what it is


@dataclass(frozen=True)
class Found:
    """text[start:end] is of this kind; `value` is equal for two spellings of one thing."""

    kind: str
    start: int
    end: int
    value: str


def find(text: str, kinds: tuple[str, ...] = USUAL, presidio_model: str = "") -> list[Found]:
    """All personal data of these kinds, in order, none overlapping; with a model, what Presidio finds besides.

    >>> [(f.kind, f.value) for f in find("Write to Ann.Lee@Example.org or call +44 20 7946 0958.")]
    [('EMAIL', 'ann.lee@example.org'), ('PHONE', '442079460958')]
    """
    shadow, where = _shadow(text)
    taken, used = list[Found](), bytearray(len(shadow))
    own = ((kind, *span) for kind in KINDS if kind in kinds for span in _FINDERS[kind](shadow))
    for kind, start, end, value in chain(own, presidio.spans(shadow, presidio_model, kinds) if presidio_model else ()):
        if value and used.find(1, start, end) < 0:
            taken.append(Found(kind, start, end, value))
            used[start:end] = b"\x01" * (end - start)
    taken.sort(key=lambda found: found.start)
    if where is None:
        return taken
    return [Found(f.kind, where[f.start], where[f.end - 1] + 1, f.value) for f in taken]


def scrub(
    text: str, names: dict[tuple[str, str], str], kinds: tuple[str, ...] = USUAL, presidio_model: str = ""
) -> tuple[str, dict[str, int]]:
    """(text with placeholders such as <EMAIL_1>, how many of each kind). `names` remembers who is which, and grows.

    >>> scrub("a@b.co, c@d.co, A@B.co", {})[0]
    '<EMAIL_1>, <EMAIL_2>, <EMAIL_1>'
    """
    parts, at, counts = list[str](), 0, dict[str, int]()
    for found in find(text, kinds, presidio_model):
        key = found.kind, found.value
        if key not in names:
            names[key] = f"<{found.kind}_{sum(kind == found.kind for kind, _ in names) + 1}>"
        parts += [text[at : found.start], names[key]]
        at = found.end
        counts[found.kind] = counts.get(found.kind, 0) + 1
    return "".join([*parts, text[at:]]), counts


_HIDDEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


@cache
def _plain() -> dict[int, str]:
    """One character for another: full-width forms, digits of other scripts, dashes, spaces."""
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    table |= dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
    table |= dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000, 9), " ")
    table |= {0x2024: "."}
    digits = (code for code in range(0x0660, 0x1FBFA) if chr(code).isdecimal())
    return table | {code: str(unicodedata.decimal(chr(code))) for code in digits}


def _shadow(text: str) -> tuple[str, list[int] | None]:
    """(the text as patterns read it, where each of its characters stands in the text or None for the same place)."""
    where = None
    if not text.isascii():
        if _HIDDEN.search(text):
            where = [i for i, char in enumerate(text) if not _HIDDEN.match(char)]
            text = "".join(text[i] for i in where)
        text = text.translate(_plain())
    return text, where


Spans = Iterator[tuple[int, int, str]]  # start, end, value; no value: not such a thing

_LOCAL, _HOST = r"[A-Za-z0-9\u00c0-\u024f._%+'\-]{1,64}", r"[A-Za-z0-9\u00c0-\u024f.\-]{3,253}"
_EMAIL = re.compile(rf"(?<![A-Za-z0-9\u00c0-\u024f._%+'\-])({_LOCAL}) ?@\n?({_HOST})")
_AT, _DOT = r"\s?[\[({<]\s?(?:at|@|艾特)\s?[\])}>]\s?", r"\s?[\[({<]\s?(?:dot|\.|点)\s?[\])}>]\s?"
_LABEL = r"[A-Za-z0-9\-]{1,63}"
_BRACKETED = re.compile(
    rf"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{{1,64}}){_AT}({_LABEL}(?:{_DOT}|\.){_LABEL}"
    rf"(?:(?:{_DOT}|\.)[A-Za-z]{{2,24}})?)",
    re.I,
)
_SPOKEN = re.compile(
    rf"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{{1,64}}) at ({_LABEL} dot [A-Za-z]{{2,24}}(?: dot [a-z]{{2,3}}\b)?)",
    re.I,
)
_DOTTED = re.compile(r"\s?[\[({<]?\s?(?:\bdot\b|点|\.)\s?[\])}>]?\s?", re.I)


def _emails(text: str) -> Spans:
    if "@" in text:
        for found in _EMAIL.finditer(text):
            local, host = found[1].lstrip("'."), found[2].rstrip(".-")
            yield (
                found.start() + len(found[1]) - len(local),
                found.start(2) + len(host),
                checks.email(local, host),
            )
    for pattern in (_BRACKETED, _SPOKEN):
        for found in pattern.finditer(text):
            yield found.start(), found.end(), checks.email(found[1], _DOTTED.sub(".", found[2]))


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ \-]?\d{2}[ \-]?[A-Za-z0-9][A-Za-z0-9 \-]{9,44}")


def _ibans(text: str) -> Spans:
    for found in _IBAN.finditer(text):
        length, value = checks.iban(found[0])
        yield found.start(), found.start() + length, value


_ID = re.compile(r"(?<![0-9A-Za-z])[1-9](?:[ \-]?[0-9]){16}[ \-]?[0-9Xx](?![0-9A-Za-z])")
_OLD_ID = re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{14}(?![0-9A-Za-z])")


def _ids(text: str) -> Spans:
    for found in _ID.finditer(text):
        yield found.start(), found.end(), checks.chinese_id(found[0])
    for found in _OLD_ID.finditer(text):
        if "身份证" in text[max(found.start() - REACH, 0) : found.start()]:
            yield found.start(), found.end(), found[0]


_OTHERWISE = re.compile(
    r"(?:isbn|issn|doi|order|invoice|serial|tracking|item|订单|单号|编号|货号|流水)[^\n]{0,12}\Z", re.I
)
_GAP = r"[ .\-\n]{1,2}"
_CARDS = [
    re.compile(rf"(?<![0-9A-Za-z])(?<![0-9][.\-]){shape}(?![0-9A-Za-z])")
    for shape in (
        r"[0-9]{13,19}",
        rf"[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{1,3}}",
        rf"[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}{_GAP}[0-9]{{4}}",
        rf"[0-9]{{4}}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}",
    )
] + [re.compile(r"(?<![0-9A-Za-z])(?<![0-9] )[0-9](?: [0-9]){12,18}(?![0-9A-Za-z])(?! [0-9]\b)")]


def _cards(text: str) -> Spans:
    for pattern in _CARDS:
        for found in pattern.finditer(text):
            if not _OTHERWISE.search(text[max(found.start() - REACH, 0) : found.start()]):
                yield found.start(), found.end(), checks.card(found[0])


_POINT = r"\[?\.\]?"
_IPV4 = re.compile(
    rf"(?<![0-9A-Za-z.])[0-9]{{1,3}}{_POINT}[0-9]{{1,3}}{_POINT}[0-9]{{1,3}}{_POINT}[0-9]{{1,3}}(?![0-9A-Za-z]|\.[0-9])"
)
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{2,36}(?:[0-9.]{4,15})?(?![0-9A-Za-z:])")
_VERSION = re.compile(
    r"(?:\bver(?:sion)?|\bv|\brelease|section|chapter|firmware|build|版本|版|第|节|§)[ .:#]{0,3}$", re.I
)


def _addresses(text: str) -> Spans:
    for pattern in (_IPV4, _IPV6):
        for found in pattern.finditer(text):
            if not _VERSION.search(text[max(found.start() - 14, 0) : found.start()]):
                shown = found[0].rstrip(":") if found[0].endswith(":") and not found[0].endswith("::") else found[0]
                yield found.start(), found.start() + len(shown), checks.ip(shown)


_PASSPORT = re.compile(r"passe?port|reisepass|pasaporte|passaporto|paspoort|护照|護照|旅券|паспорт|여권", re.I)
_PASSPORT_NUMBER = re.compile(
    r"(?<![0-9A-Za-z])(?:[A-Za-z]{1,2}[ \-]?)?[0-9][0-9A-Za-z]{0,3}"
    r"[ \-]?[0-9A-Za-z]{2,8}[ \-]?[0-9A-Za-z]{0,4}(?![0-9A-Za-z])"
)


def _passports(text: str) -> Spans:
    for word in _PASSPORT.finditer(text):
        end = min(word.end() + REACH, len(text))
        for found in _PASSPORT_NUMBER.finditer(text, word.end(), min(end + 14, len(text))):
            length, value = checks.passport(found[0])
            if value and found.start() < end:
                yield found.start(), found.start() + length, value
                break


_URL = re.compile(
    r"(?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]{1,15}://"
    r"(?:[^\s/@:?#<>\"]{0,100}:[^\s/@<>\"]{1,100}@[^\s<>\"，。；、）]{1,2000}"
    r"|[^\s?<>\"]{1,1000}\?[^\s<>\"，。；、）]{1,2000})"
)
_SECRET = re.compile(
    r"[?&](?:access_token|auth|api_?key|token|password|passwd|pwd|secret|sig|session(?:_?id)?)=[^&#]{3}", re.I
)


def _urls(text: str) -> Spans:
    if "://" in text:
        for found in _URL.finditer(text):
            shown = found[0].rstrip(".,;:!?)]}'")
            held = "@" in shown.partition("?")[0] and "@" in shown.split("://", 1)[1].partition("/")[0]
            yield found.start(), found.start() + len(shown), shown if held or _SECRET.search(shown) else ""


_NUMBER = re.compile(
    r"(?<![0-9A-Za-z.+])(?<![0-9][/\-])(?:\+ ?|\(\+?)?"
    r"[0-9](?:(?:[ ./\-]|\)[ ./\-]?| \(| - )?\(?[0-9]){5,24}(?:(?![0-9A-Za-z])|(?= ?x[0-9]{2,5}\b))"
)
_EXTENSION = re.compile(r" ?(?:x|ext\.?|extension|Durchwahl|转|轉|分机|内線)[ :]{0,2}[0-9]{1,6}\b", re.I)
_CALLS = re.compile(
    r"\b(?:tel|phone|telephone|call|mobile|cell|fax|whatsapp|sms|ring|dial|reach (?:me|us|him|her)|telefon|handy|"
    r"téléphone|portable|teléfono|móvil|telefono|cellulare|telefone|celular|тел|телефон)\b|"
    r"电话|電話|手机|手機|座机|热线|致电|拨打|来电|传真|微信|联系方式|전화",
    re.I,
)
_SAID = "zero|oh|one|two|three|four|five|six|seven|eight|nine|double"
_SPELLED = re.compile(rf"\b(?:plus )?(?:{_SAID})(?:[ ,\-]{{1,2}}(?:{_SAID})){{6,15}}\b", re.I)
_CHINESE = re.compile(
    "(?<![零〇一二三四五六七八九幺])[一幺][三四五六七八九][零〇一二三四五六七八九幺]{9}(?![零〇一二三四五六七八九幺])"
)


def _phones(text: str) -> Spans:
    for found in _NUMBER.finditer(text):
        before = text[max(found.start() - REACH, 0) : found.start()]
        if not _OTHERWISE.search(before):
            for start, end, value in checks.phones(found[0], said=bool(_CALLS.search(before))):
                end = found.start() + end
                extension = _EXTENSION.match(text, end)
                yield found.start() + start, extension.end() if extension else end, value
    for found in _SPELLED.finditer(text):
        if _CALLS.search(text, max(found.start() - REACH, 0), found.start()):
            yield found.start(), found.end(), checks.spelled(found[0])
    for found in _CHINESE.finditer(text):
        yield found.start(), found.end(), checks.spelled(found[0])


_FINDERS: dict[str, Callable[[str], Spans]] = {
    "URL": _urls,
    "EMAIL": _emails,
    "IBAN": _ibans,
    "ID": _ids,
    "CARD": _cards,
    "IP": _addresses,
    "PASSPORT": _passports,
    "ADDRESS": places.addresses,
    "PHONE": _phones,
    "NAME": places.names,
}
