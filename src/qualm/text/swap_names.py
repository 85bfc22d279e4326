"""The other gender of personal names: given names of like age and frequency exchanged, both ways, English and Chinese.

For counterfactual pairs beside `qualm.text.swap` (names: Hall Maudslay et al. 2019, arXiv 1909.00871). A name is
swapped everywhere in a text, or nowhere. Names that are words too (Grace, Mark, Will) and names of both genders are
left alone. In Chinese it is the last character of a given name, behind a surname and before a word that says that it is
a name, that tells its gender most often.
"""

import re

from qualm.text.personal_places import gazetteer

_PAIRS = """
James Mary, John Patricia, Robert Jennifer, Michael Linda, David Elizabeth, William Barbara, Richard Susan, Joseph
Jessica, Thomas Sarah, Charles Karen, Christopher Lisa, Daniel Nancy, Matthew Betty, Anthony Sandra, Donald Margaret,
Steven Ashley, Andrew Kimberly, Paul Emily, Joshua Donna, Kenneth Michelle, Kevin Carol, Brian Amanda, Timothy
Melissa, Ronald Deborah, George Stephanie, Jason Rebecca, Edward Sharon, Jeffrey Laura, Ryan Cynthia, Jacob Amy, Gary
Kathleen, Nicholas Angela, Jonathan Shirley, Stephen Brenda, Larry Emma, Justin Anna, Benjamin Samantha, Samuel
Katherine, Gregory Christine, Alexander Helen, Patrick Debra, Raymond Rachel, Dennis Catherine, Jerry Carolyn, Nathan
Janet, Henry Alice, Peter Jane, Adam Julia, Arthur Martha, Albert Frances, Walter Rose, Harold Ruth, Hugh Eleanor,
Oliver Olivia, Simon Claire, Martin Judith, Philip Diana, Leonard Dorothy, Edwin Edith, Ernest Ethel, Frederick
Florence, Hans Ursula, Karl Greta, Pierre Sylvie, Jacques Jeanne, Juan Lucía, Carlos Carmen, Pedro Rosa, Luigi Chiara,
Giovanni Giulia, Ivan Olga, Sergei Natalia
"""
_CHINESE = """
伟 芳, 强 敏, 磊 静, 军 丽, 勇 艳, 杰 娟, 涛 秀, 明 霞, 刚 娜, 浩 婷, 斌 燕, 鹏 雪, 峰 玲, 辉 颖, 建 桂, 龙 凤, 洋 倩,
凯 琳, 飞 萍, 波 蓉
"""


def _both_ways(pairs: str, without: frozenset[str] = frozenset()) -> dict[str, str]:
    table: dict[str, str] = {}
    for pair in pairs.replace("\n", " ").split(","):
        left, right = pair.split()
        for one, other in ((left, right), (right, left)):
            if one not in without and other not in without:
                table.setdefault(one, other)
    return table


_SWAPPED = _both_ways(_PAIRS, frozenset({"Rose", "Will", "Mark", "Grace"}))
_HAN_SWAPPED = _both_ways(_CHINESE)
_NAME = re.compile(rf"\b(?:{'|'.join(sorted(_SWAPPED, key=len, reverse=True))})\b(?!['’]s (?:Day|Church))")
_HAN_FAMILY = "".join(sorted(name for name in gazetteer("chinese-surnames") if len(name) == 1))
_HAN_NAME = re.compile(
    rf"(?<=[{_HAN_FAMILY}])([\u4e00-\u9fff]?)([{''.join(_HAN_SWAPPED)}])"
    r"(?=先生|女士|老师|教授|医生|同学|经理|，|说|和|与|在|是|的|告诉|表示|认为)"
)


def swap_names(text: str) -> str | None:
    """The text with each given name of a pair exchanged for the other; None if there is none.

    >>> swap_names("Mary told John that Grace had left."), swap_names("A cold day.")
    ('James told Patricia that Grace had left.', None)
    """
    swapped = _NAME.sub(lambda name: _SWAPPED[name[0]], text)
    swapped = _HAN_NAME.sub(lambda name: name[1] + _HAN_SWAPPED[name[2]], swapped)
    return swapped if swapped != text else None
