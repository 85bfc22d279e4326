"""What a model wrote, made fit to be used: Markdown put in order, JSON pulled out, a text cut to whole sentences.

Nothing here changes what is said. Code stays as it is; JSON is mended only where nothing can be lost by it; what was
cut off stays cut off.
"""

import json
import re
from itertools import islice

from qualm.errors import UsageError

__all__ = ["FORMS", "json_in", "markdown", "tidied", "whole_sentences"]

FORMS = ("markdown", "json", "sentences")

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r"^( {0,3}#{1,6})(?=[^\s#])")
BULLET = re.compile(r"^(\s*)[*+•·‣▪–](?=\s)\s+")
RULE = re.compile(r"^ {0,3}([-*_])( *\1){2,} *$")

ENDS, FULL = ".!?…", "。！？…"  # of an English sentence, which a space must follow, and of a Chinese one
LONG = 40  # characters of a word, at most
CLOSERS = "\"'”’)]}»*_`」』”’）】》"
SHORT = re.compile(
    "mr|mrs|ms|dr|prof|sr|jr|st|vs|etc|cf|al|no|nos|vol|figs?|eqs?|pp|eds?|inc|ltd|co|corp|dept|est|approx|"
    r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|e\.g|i\.e|a\.m|p\.m|u\.s|u\.k|ph\.d"
)  # what a point follows inside a sentence

OPEN, CLOSE, TRIES, DEPTH = "{[", "}]", 16, 500  # TRIES: brackets that may turn out to open nothing
TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<double>"(?:[^"\\\n]|\\.)*")|(?P<single>'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))|(?P<word>[A-Za-z_$][\w$]*)|(?P<mark>[{}\[\]:,])""",
    re.S,
)
KEY = re.compile(r"\s*:")
WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}


def tidied(text: str, form: str) -> str:
    """A text in one of FORMS; "" where there is no JSON in it.

    Raises UsageError for another form.
    """
    if form not in FORMS:
        raise UsageError(f"no form is named {form!r}", then=f"say one of {', '.join(FORMS)}")
    if form == "json":
        return json_in(text) or ""
    return markdown(text) if form == "markdown" else whole_sentences(text)


def markdown(text: str) -> str:
    """The same Markdown, evenly written: one empty line between blocks, "-" for bullets, a space after the # of a
    heading, no spaces at the ends of lines (but the two that break one), every code fence closed. Code is left alone.

    >>> markdown("#Title\\n* one\\n\\n\\n* two   \\n```py\\nx  = 1\\n")
    '# Title\\n- one\\n\\n- two\\n```py\\nx  = 1\\n```\\n'
    """
    lines: list[str] = []
    fence = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        mark = FENCE.match(line)
        if fence:
            lines.append(line)
            closes = mark and mark[1].startswith(fence) and not line[mark.end() :].strip()
            fence = "" if closes else fence
            continue
        if mark:
            fence = mark[1]
        elif not line.startswith(("    ", "\t")) and not RULE.match(line):
            line = BULLET.sub(r"\1- ", HEADING.sub(r"\1 ", line))
        kept = line.rstrip(" \t")
        line = f"{kept}  " if kept and len(line) - len(kept) == 2 and line.endswith("  ") else kept
        if line or (lines and lines[-1]):
            lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    lines += [fence] if fence else []
    return "\n".join(lines) + ("\n" if lines and (text.endswith("\n") or fence) else "")


def json_in(text: str) -> str | None:
    """The first object or list in a text, as JSON; None if there is none that is whole.

    Only what is unambiguous is mended: single quotes, keys without quotes, Python's True, False and None, commas before
    a closing bracket, comments. Numbers and strings keep their spelling.

    >>> json_in("Sure! {'a': [1, 2,], ok: True} Anything else?")
    '{"a": [1, 2], "ok": true}'
    >>> json_in('{"a": [1, 2') is None
    True
    """
    opened = (found.start() for found in re.finditer(r"[{\[]", text))
    return next((whole for at in islice(opened, TRIES) if (whole := _read_json(text, at)) is not None), None)


def _read_json(text: str, at: int) -> str | None:
    """The JSON that begins at a bracket, mended; None if it does not end or is none."""
    made: list[str] = []
    last = depth = 0  # `last`: where in `made` the last thing is that is no space
    while match := TOKEN.match(text, at):
        at, kind, token = match.end(), match.lastgroup, match[0]
        if kind == "comment":
            continue
        if token in CLOSE and made[last] == ",":
            del made[last:]
        if kind == "word":
            token = json.dumps(token) if KEY.match(text, at) else WORDS.get(token, "")
            if not token:
                return None
        last = last if kind == "space" else len(made)
        made.append(_double(token) if kind == "single" else token)
        depth += (token in OPEN) - (token in CLOSE)
        if depth > DEPTH:
            return None
        if depth == 0:
            whole = "".join(made)
            return whole if _is_json(whole) else None
    return None


def _double(token: str) -> str:
    """A string in single quotes, in double ones."""
    return '"' + re.sub(r"\\(.)|\"", lambda m: '\\"' if not m[1] else "'" if m[1] == "'" else m[0], token[1:-1]) + '"'


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence, English or Chinese; all of it if it holds no end of one.

    A point ends no sentence after an abbreviation or an initial, in a number, or before a small letter.

    >>> whole_sentences("Dr. Wu paid 3.50 for it. Then she le"), whole_sentences("今天很好。明天我们去")
    ('Dr. Wu paid 3.50 for it.', '今天很好。')
    """
    for match in reversed(list(re.finditer(rf"[{re.escape(ENDS + FULL)}]+", text))):
        end = match.end()
        while end < len(text) and text[end] in CLOSERS:
            end += 1
        if (match[0][-1] in FULL and match[0] != "…") or _ends_here(text, match.start(), end):
            return text[:end]
    return text


def _ends_here(text: str, point: int, end: int) -> bool:
    """Whether the point, question or exclamation mark at `point`, closed at `end`, ends an English sentence."""
    following = re.compile(r"\s*").match(text, end)
    begins = following.end() if following else end
    if begins < len(text) and (begins == end or text[begins].islower()):
        return False
    if text[point] != ".":
        return True
    word = re.split(r"[\s(\"“‘]", text[max(0, point - LONG) : point])[-1]
    initial = len(word) == 1 and word.isupper() and word != "I"
    item = (
        word.isdigit() and not text[text.rfind("\n", 0, point) + 1 : point - len(word)].strip()
    )  # of a list: "2. Then"
    return not (initial or item or SHORT.fullmatch(word.lower()))
