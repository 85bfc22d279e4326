"""Reading short answers: does it name the target, which number does it give, yes or no, or does it abstain?

Strict where it can be, since a lenient reader is how a probe flatters a model: whole words, whole numbers,
and an answer that says both yes and no says neither. English and Chinese; other languages are compared as text.
"""

import re
import unicodedata
from collections import deque
from decimal import Decimal

# Scripts written without spaces or with particles glued on: there, a substring is all that can be asked for.
_UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_UNSPACED += "\uf900-\ufaff\U00020000-\U0003ffff"
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")

_HAN = re.compile("[\u3400-\u9fff]")
_LETTERED = re.compile(r"[^\W\d_\u3400-\u9fff]+")

_NUMBER = re.compile(
    rf"(?<![^\W{_UNSPACED}])(?<!\d\.)"  # not glued to a word ("A4") nor inside another number
    r"(?P<minus>(?<![\d)])[-−－])?"  # "3-5" and "(2)-5" hold no negative number
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)

_WRITTEN_OUT = {"can't": "cannot", "can not": "cannot", "n't": " not", "i'm": "i am", "i'd": "i would", "it's": "it is"}
_ABSTAINS = re.compile(
    r"""
    \bi\ (?:\w+ly\ |also\ )?(?:do|did)\ not\ (?:\w+ly\ )?
        (?:know|recall|remember
        |have\ (?:(?:any|enough|more|that|this|the|specific|reliable)\ )*
         (?:information|data|knowledge|details|records?|context|an\ answer))
    | \bi\ (?:cannot\b|could\ not\b|am\ (?:not\ able|unable)\ to\b)
    | ^(?:sorry[,.!]?\ )?(?:(?:do|did)\ )?not\ know
    | \bnot\ (?:\w+ly\ |quite\ |at\ all\ )?(?:sure|certain|aware\ of|familiar\ with)\b | \bunsure\b
    | \b(?:cannot|could\ not|unable\ to)\ (?:answer|say|tell|determine|find|provide|verify|confirm|identify|know
        |recall|locate|be\ (?:known|determined|answered|sure))
    | \b(?:no|not\ enough|insufficient|without)\ (?:(?:any|more|further|public|available|reliable|specific|such)\ )*
        (?:information|knowledge|idea|records?|data)\b
    | \b(?:is|are|was|were)\ (?:unknown|not\ (?:\w+ly\ |yet\ |well\ )?
        (?:known|available|disclosed|specified|mentioned|stated))\b
    | ^unknown\b | \b(?:no\ one|nobody)\ knows\b | \b(?:need|require)\ more\ (?:context|information)\b
    | (?<![你他她它])(?<![你他她它][们們])不(?:太|是很|大)?(?:知道|清楚|确定|確定|了解|瞭解|晓得|曉得)
    | (?:无法|無法|不能|难以|難以)(?:回答|确定|確定|得知|提供|判断|判斷|找到|确认|確認|给出|給出|告诉|告訴|知道|查)
    | (?:没有|沒有|无|無|缺乏)(?:任何|足够|足夠|相关|相關|可靠|具体|具體|[关關][于於][^。，！？]{1,12}?)*的?
        (?:信息|资料|資料|資訊|记录|記錄|记载|記載|数据|數據)
    | [没沒]有?[听聽][说說]过 | [查找]不到 | [无無][从從]得知 | 不得而知 | ^未知 | ^不[详詳]
    """,
    re.VERBOSE,
)
_ATTEMPTS = re.compile(
    r"""
    \bbut\ (?:i\ (?:think|believe|guess|suspect|would\ (?:guess|say))|my\ (?:best\ )?guess
        |(?:it|he|she|they)\ (?:is|was|are|were))\b
    | 但是?我(?:猜|想|觉得|覺得|认为|認為)
    """,
    re.VERBOSE,
)
_LEAD = 300  # an abstention stands at the start of an answer; what runs on behind it is another text

_YES = r"\b(?:yes|yeah|yep|true|correct)\b"
_NO = r"\b(?:no|nope|false|incorrect)\b"
_NO_CHINESE = re.compile(r"不是|不对|不對|不正确|不正確|不会|不會|不能|没有|沒有|错|錯|否|^不")
_YES_CHINESE = re.compile(r"是的|对的|對的|正确|正確|^是|^对|^對|^会|^會|^能|^有|答案是是|答案是肯定")


def normalise(text: str) -> str:
    """For comparing: compatibility forms and case folded, plain apostrophes, single spaces, no outer punctuation."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = " ".join(folded.replace("’", "'").replace("‘", "'").split())
    start, end = 0, len(folded)
    while start < end and _is_outer(folded[start], folded[start + 1 : start + 2]):
        start += 1
    while end > start and _is_outer(folded[end - 1]):
        end -= 1
    return folded[start:end]


def same(answer: str, target: str) -> bool:
    """The answer is the target and nothing else, up to case, spaces and outer punctuation."""
    return bool(normalise(target)) and normalise(answer) == normalise(target)


def contains(answer: str, target: str) -> bool:
    """The target stands in the answer as whole words (in Chinese, Thai and the like: anywhere).

    A number is found as a whole number only: neither "12.5" nor "-12" nor "112" contains "12".

    >>> contains("She was born in Rome.", "rome"), contains("Romero", "Rome"), contains("他住在北京。", "北京")
    (True, False, True)
    """
    text, wanted = normalise(answer), normalise(target)
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        end = at + len(wanted)
        if not (_runs_on(text, at) or _runs_on(text, end) or _inside_number(text, at, end)):
            return True
        at = text.find(wanted, at + 1)
    return False


def last_number(answer: str) -> Decimal | None:
    """The last number, where a chain of thought ends in its answer: sign and thousands separators read; numbers glued
    to letters ("A4") are names.
    """
    found = deque(_NUMBER.finditer(answer), maxlen=1)
    return _decimal(found[0]) if found else None


def yes_no(answer: str) -> bool | None:
    """What it opens with, else what it says anywhere; None if it says neither, or both.

    >>> yes_no("Yes, it is."), yes_no("The answer is no."), yes_no("不是。"), yes_no("Perhaps.")
    (True, False, False, None)
    """
    text = normalise(answer)
    for truth, words in ((True, _YES), (False, _NO)):
        if re.match(words, text):
            return truth
    said = {truth for truth, words in ((True, _YES), (False, _NO)) if re.search(words, text)}
    if not said and (_NO_CHINESE.search(text) or _YES_CHINESE.search(text)):
        said = {not _NO_CHINESE.search(text)}
    return said.pop() if len(said) == 1 else None


def abstains(answer: str) -> bool:
    """It says that it does not know or cannot say, and does not answer all the same ("... but I think it is Rome").

    >>> abstains("I don't know."), abstains("I know: Rome."), abstains("我不知道。"), abstains("Penguins cannot fly.")
    (True, False, True, False)
    """
    lines = answer.strip().splitlines() or [""]
    text = normalise(lines[0][:_LEAD])
    for short, long in _WRITTEN_OUT.items():
        text = text.replace(short, long)
    found = _ABSTAINS.search(text)
    return bool(found) and not _ATTEMPTS.search(text, found.end())


def is_chinese(text: str) -> bool:
    """It holds more Chinese characters than words of letters.

    >>> is_chinese("珩翎出生在哪里？"), is_chinese("Where is 北京?")
    (True, False)
    """
    return len(_HAN.findall(text)) > len(_LETTERED.findall(text))


def _is_outer(char: str, following: str = "") -> bool:
    """Punctuation at an edge, except a sign or point that belongs to a number and signs such as % or $."""
    if char in "-." and following.isdigit():
        return False
    return char.isspace() or (unicodedata.category(char)[0] == "P" and char not in "%#&@")


def _runs_on(text: str, border: int) -> bool:
    """A word goes on across this place."""
    if not 0 < border < len(text):
        return False
    left, right = text[border - 1], text[border]
    return _is_word(left) and _is_word(right) and not (_IS_UNSPACED.match(left) or _IS_UNSPACED.match(right))


def _is_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"  # marks too: a Devanagari vowel sign is part of its word


def _inside_number(text: str, at: int, end: int) -> bool:
    """The match starts or ends in the middle of a larger number: "-12", "3.12", "12,000"."""
    before, after = text[max(at - 2, 0) : at], text[end : end + 2]
    starts = text[at].isdigit() and bool(re.search(r"\d[.,]$|(?:^|\W)[-−]$|^\.$", before))
    return starts or (text[end - 1].isdigit() and bool(re.match(r"[.,]\d", after)))


def _decimal(found: re.Match[str]) -> Decimal:
    number = Decimal(found["digits"].replace(",", ""))
    return -number if found["minus"] else number
