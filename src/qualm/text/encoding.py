"""The encoding of bytes, told by what they say: UTF-8 if they are that, else the one in which they read as a language.

A byte order mark is believed. Of GB 18030 and Big5 the one is taken in which at least nine of ten Chinese characters
are those that schools teach: bytes of one, read as the other, give rare characters. Windows' Latin letters come last,
if the letters beyond ASCII stand among others, as accents do. Nothing is guessed from less.
"""

import codecs
import re

import ftfy
from ftfy.badness import is_bad

from qualm.text.hanzi import is_common

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEAST = 0.9  # of the Chinese characters that are common, for a Chinese encoding to be believed
_CONTROLS = bytes(code for code in range(32) if code not in (9, 10, 12, 13, 27))
_HAN = re.compile("[\u4e00-\u9fff]")
_ODD = re.compile("[^\x00-\x7f\u3000-\u303f\u4e00-\u9fff\uff01-\uff5e\u2010-\u2026\u00b7]")
_WORDS = re.compile("[A-Za-z\u00c0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e]+")


def detect(raw: bytes, whole: bool = True) -> str | None:
    """The name of the codec that decodes these bytes, or None if they are no text that is known.

    `whole` says that the bytes are all there are, so that no character may be cut off at their end.

    >>> detect("Größe".encode()), detect("Die Größe der Straße".encode("cp1252")), detect(b"\\x00\\x01\\x02\\xff")
    ('utf-8', 'cp1252', None)
    >>> detect("他昨天去了北京，大家不知道。".encode("gb18030")), detect("他昨天去了台北，我們不知道。".encode("big5"))
    ('gb18030', 'big5')
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return "utf-8" if name == "utf-8-sig" else name
    if b"\x00" in raw:
        return _wide(raw)
    if _decoded(raw, "utf-8", whole) is not None:
        return "utf-8" if _is_printable(raw) else None
    if not _is_printable(raw):
        return None
    if _is_mostly_utf8(raw):
        return "utf-8"  # but for a place or two, which are the reader's to name
    shares = {name: _chinese(_decoded(raw, name, whole)) for name in ("gb18030", "big5")}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= _LEAST:
        return best
    if _is_latin(_decoded(raw, "cp1252", whole)):
        return "cp1252"
    return "utf-8" if sum(byte > 127 for byte in raw) <= len(raw) // 100 else None  # those are for the reader to name


def decoder(codec: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(codec)("strict")


def mended(text: str) -> str:
    """Without mojibake: bytes that were decoded as another encoding than their own, line by line (ftfy).

    >>> mended("The ItÃ¤lian cafÃ© â€“ open"), mended("naïve café – £5")
    ('The Itälian café – open', 'naïve café – £5')
    """
    if text.isascii() or not is_bad(text):
        return text
    return "".join(ftfy.fix_encoding(line) if is_bad(line) else line for line in text.splitlines(keepends=True))


def _decoded(raw: bytes, codec: str, whole: bool) -> str | None:
    """The text, or None where it cannot be one."""
    try:
        return decoder(codec).decode(raw, final=whole)
    except UnicodeDecodeError:
        return None


def _is_mostly_utf8(raw: bytes) -> bool:
    """Of the characters beyond ASCII nine of ten are whole."""
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return sum(not char.isascii() for char in text) > 10 * wrong


def _is_printable(raw: bytes) -> bool:
    """Hardly a control character, of which text has none and what is compressed or compiled one in ten."""
    return len(raw) - len(raw.translate(None, _CONTROLS)) <= len(raw) // 100


def _wide(raw: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of what is ASCII is zero; and it must decode to hardly a control."""
    even, odd = raw[0::2].count(0), raw[1::2].count(0)
    name = "utf-16-le" if odd > even else "utf-16-be"
    if max(even, odd) < 10 * min(even, odd) or max(even, odd) < len(raw) // 20:
        return None
    text = _decoded(raw[: len(raw) // 2 * 2], name, whole=False)
    return name if text and sum(char < " " and char not in "\t\n\r\f" for char in text) <= len(text) // 100 else None


def _chinese(text: str | None) -> float:
    """The share of characters beyond ASCII that are common Chinese ones or their punctuation; 0 without any."""
    if text is None:
        return 0.0
    text = text[:20_000]
    han = _HAN.findall(text)
    return sum(map(is_common, han)) / (len(han) + len(_ODD.findall(text))) if han else 0.0


def _is_latin(text: str | None) -> bool:
    """Words in which letters beyond ASCII are fewer than the plain ones."""
    if text is None:
        return False
    words = [word for word in _WORDS.findall(text[:20_000]) if not word.isascii()]
    beyond = sum(not char.isascii() for word in words for char in word)
    odd = sum(not char.isascii() for char in text[:20_000])
    return bool(words) and 2 * beyond < sum(map(len, words)) and beyond >= 0.5 * odd
