"""Text as it was meant: no HTML remains, no invisible characters, one form of each character, plain white space.

Each function gives the text and how many places it changed. All are linear in the length of the text.
"""

import html
import re
import unicodedata
from collections.abc import Callable

_ELEMENTS = """a abbr address article aside audio b blockquote body br button caption center cite code col colgroup dd
del details div dl dt em embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i
iframe img input ins kbd label legend li link main map mark meta nav noscript object ol optgroup option p param picture
pre q s samp section select small source span strike strong sub summary sup svg table tbody td textarea tfoot th thead
time title tr tt u ul var video wbr"""
_BREAKING = """address article aside blockquote br dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 header
hr li main nav ol p pre section table tbody td tfoot th thead title tr ul"""
_ENDING = frozenset(_BREAKING.split())
_TAG = re.compile(
    rf"<(?=[/A-Za-z])/?({'|'.join(sorted(_ELEMENTS.split(), key=len, reverse=True))})(?:[\s/][^<>]{{0,2000}})?>", re.I
)
_HIDDEN = (("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>"), ("<![CDATA[", "]]>"))
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")

_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls, soft hyphen, zero-width space, word joiner, byte order mark, embeddings and overrides of direction,
# interlinear marks, noncharacters
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u115f\u1160\u180e\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff0-\ufffb\ufdd0-\ufdef\ufffe\uffff\U000e0001]"
)
_JOINER = re.compile("[\u200c\u200d]+")
_MARK = re.compile("[\u200e\u200f\u061c]+")
_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+")  # not those of a flag
_JOINED = (  # scripts in which a joiner decides how letters are shaped
    *((0x0600, 0x08FF), (0x0900, 0x0DFF), (0x0E80, 0x109F), (0x1780, 0x18AF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
)
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

_HALF = {code: code - 0xFEE0 for first, last in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
         for code in range(first, last + 1)}  # fmt: skip
_WIDE_LETTER = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_WIDE_BETWEEN = re.compile(
    "(?<=[A-Za-z0-9])[\uff03\uff05\uff06\uff0b\uff0d-\uff0f\uff1a\uff1d\uff20\uff3f](?=[A-Za-z0-9])"
)
_KATAKANA = re.compile("[\uff65-\uff9f]+")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_NARROW_BETWEEN = re.compile(f"(?<=[{_HAN}])[,;:?!](?=[{_HAN}]|$)", re.M)

_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_INSIDE = re.compile(r"(?<=[^ \t\n])(?:[ \t]{2,}|\t)(?=[^ \t\n])")
_CODE = ("    ", "\t")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+$", re.M)
_BLANK = re.compile(r"\n{3,}")


def without_html(text: str) -> tuple[str, int]:
    """Without comments, scripts, styles and known tags, and with entities as the characters they stand for.

    Only elements of HTML are tags: `a < b`, `<unk>` and `<EMAIL_1>` stay. Markup that was written as entities is text,
    and stays too. A block element ends the line.

    >>> without_html("<p class='x'>Tea &amp; milk<br/>if a < b</p><!-- ad -->")[0]
    '\\nTea & milk\\nif a < b\\n'
    """
    count = 0
    if "<" in text:
        for opens, closes in _HIDDEN:
            text, cut = _cut(text, opens, closes)
            count += cut
        text, cut = _TAG.subn(lambda tag: "\n" if tag[1].lower() in _ENDING else "", text)
        count += cut
    if "&" in text:
        shown = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        count += shown != text
        text = shown
    return text, count


def _cut(text: str, opens: str, closes: str) -> tuple[str, int]:
    """Without what stands between `opens` and the next `closes`; what is never closed stays."""
    low = text.lower() if opens[1].isalpha() else text
    if opens not in low or len(low) != len(text):
        return text, 0
    kept, at, count = list[str](), 0, 0
    while (start := low.find(opens, at)) >= 0 and (end := low.find(closes, start + len(opens))) >= 0:
        kept.append(text[at:start])
        at, count = end + len(closes), count + 1
    return "".join([*kept, text[at:]]), count


def without_invisible(text: str) -> tuple[str, int]:
    """Without control and zero-width characters; every end of line is a newline.

    Joiners stay inside emoji and between letters of scripts that are shaped by them (Arabic, Indic, Burmese, Khmer,
    Mongolian), marks of direction beside right-to-left letters, tags in flags.
    """
    text, count = _ENDS.subn("\n", text)
    for pattern, keeps in ((_INVISIBLE, None), (_JOINER, _is_needed), (_TAGS, None), (_MARK, _is_beside)):
        text, cut = _removed(pattern, text, keeps)
        count += cut
    return text, count


def _removed(pattern: re.Pattern[str], text: str, keeps: Callable[[re.Match[str]], bool] | None) -> tuple[str, int]:
    count = 0

    def decide(found: re.Match[str]) -> str:
        nonlocal count
        if keeps and keeps(found):
            return found[0]
        count += 1
        return ""

    return pattern.sub(decide, text), count


def _is_needed(found: re.Match[str]) -> bool:
    before, after = found.string[max(found.start() - 1, 0) : found.start()], found.string[found.end() : found.end() + 1]
    if before and any(first <= ord(before) <= last for first, last in _JOINED):
        return unicodedata.category(before)[0] in "LM"
    return found[0] == "\u200d" and _is_emoji(before) and _is_emoji(after)


def _is_emoji(char: str) -> bool:
    """A pictograph, a colour of skin, or the selector that makes one."""
    return bool(char) and (char == "\ufe0f" or unicodedata.category(char) in ("So", "Sk") or char in "\u2640\u2642")


def _is_beside(found: re.Match[str]) -> bool:
    return bool(_RIGHT_TO_LEFT.search(found.string, max(found.start() - 20, 0), found.end() + 20))


def composed(text: str) -> tuple[str, int]:
    """Unicode's form C: each letter with its accents in one character where there is one."""
    if unicodedata.is_normalized("NFC", text):
        return text, 0
    return unicodedata.normalize("NFC", text), 1


def with_even_width(text: str) -> tuple[str, int]:
    """Letters and digits in half width, katakana in full, and punctuation as its neighbours are.

    >>> with_even_width("Ａ４纸,好,ｎａｍｅ＠ｘ．ｃｎ（好）ｶﾞ")[0]
    'A4纸，好,name@x.cn（好）ガ'
    """
    count = len(_WIDE_LETTER.findall(text))
    text = text.translate(_HALF) if count else text
    for pattern, change in ((_WIDE_BETWEEN, _narrow), (_KATAKANA, _compatible), (_NARROW_BETWEEN, _wide)):
        text, changed = pattern.subn(change, text)
        count += changed
    return text, count


def _narrow(found: re.Match[str]) -> str:
    return chr(ord(found[0]) - 0xFEE0)


def _wide(found: re.Match[str]) -> str:
    return chr(ord(found[0]) + 0xFEE0)


def _compatible(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0])


def with_plain_space(text: str) -> tuple[str, int]:
    """One space between words, none at the end of a line, one blank line at most.

    Indents stay, and so does what stands behind one of four spaces or a tab, which is code as a rule.
    """
    text, count = _SPACES.subn(" ", text)
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if not line.startswith(_CODE):
            lines[i], changed = _INSIDE.subn(" ", line)
            count += changed
    text = "\n".join(lines)
    for pattern, instead in ((_TRAILING, ""), (_BLANK, "\n\n")):
        text, changed = pattern.subn(instead, text)
        count += changed
    stripped = text.rstrip().lstrip("\n")
    return stripped, count + (stripped != text)
