"""Chinese in one script: traditional characters as simplified ones, or the other way, by OpenCC (extra `zh`).

Phrases decide where a character has several forms (發 and 髮 are both 发). Text with kana is Japanese and stays.
"""

import re
from functools import cache
from typing import Any, Literal

from qualm.errors import MissingExtra

Script = Literal["", "simplified", "traditional"]
_TABLES = {"simplified": "t2s", "traditional": "s2t"}
_HAN, _KANA = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]"), re.compile("[\u3041-\u30ff]")


def in_script(text: str, script: Script) -> tuple[str, int]:
    """(the text in this script, how many characters are others now); as it is for "".

    Raises MissingExtra without OpenCC.
    """
    if not script:
        return text, 0
    converter = _converter(_TABLES[script])
    if not _HAN.search(text) or _KANA.search(text):
        return text, 0
    made = converter.convert(text)
    return made, sum(a != b for a, b in zip(text, made, strict=False)) + abs(len(text) - len(made))


@cache
def _converter(table: str) -> Any:
    try:
        from opencc import OpenCC  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("OpenCC is not installed", then="pip install 'qualm-lm[zh]'") from error
    return OpenCC(table)
