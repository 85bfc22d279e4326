"""The other gender: both sides of every gendered pair exchanged, in English and Chinese.

Two-sided (Lu et al. 2018, arXiv 1807.11714; Maudslay et al. 2019, arXiv 1909.00871): "he" becomes "she" and "she"
"he", so that text and swapped text together are balanced. Personal names are left as they are.

English "her" is two words: it becomes "his" if a word follows that can open or head a noun phrase ("her old car"),
otherwise "him" ("saw her yesterday."); so does "his" become "her" or "hers". The rule looks at the next word only and
a verb or noun it does not know counts as a noun: "made her laugh" becomes "made his laugh". Swapping twice gives the
text back except where many terms share one ("Mrs" and "Ms" both become "Mr") or the rule errs.
"""

import re

# "+" marks a pair with regular plurals. Where a term stands twice, the first pair says what it becomes.
_PAIRS = """
he she, himself herself, man woman, men women, gentleman lady, gentlemen ladies, boy+ girl+, father+ mother+, dad+ mum+,
dad+ mom+, daddy mummy, daddy mommy, son+ daughter+, brother+ sister+, husband+ wife, husbands wives, uncle+ aunt+,
nephew+ niece+, grandfather+ grandmother+, grandpa+ grandma+, grandson+ granddaughter+, stepfather+ stepmother+,
stepson+ stepdaughter+, boyfriend+ girlfriend+, groom+ bride+, bridegroom+ bride+, widower+ widow+, king+ queen+,
prince+ princess, princes princesses, duke+ duchess, dukes duchesses, emperor+ empress, emperors empresses, lord+ lady,
god+ goddess, gods goddesses, hero heroine, heroes heroines, actor+ actress, actors actresses, waiter+ waitress,
waiters waitresses, heir+ heiress, heirs heiresses, steward+ stewardess, stewards stewardesses, wizard+ witch,
wizards witches, monk+ nun+, sir madam, sir ma'am, mr ms, mr mrs, male+ female+, masculine feminine,
masculinity femininity, landlord+ landlady, landlords landladies, fatherhood motherhood, brotherhood sisterhood,
manhood womanhood, boyhood girlhood, schoolboy+ schoolgirl+, paternal maternal, fatherly motherly, manly womanly,
lad+ lass, lads lasses, businessman businesswoman, businessmen businesswomen, chairman chairwoman,
policeman policewoman, policemen policewomen, congressman congresswoman, congressmen congresswomen,
spokesman spokeswoman, salesman saleswoman, salesmen saleswomen, nobleman noblewoman, noblemen noblewomen
"""
_CHINESE_PAIRS = """
他 她, 男 女, 儿子 女儿, 兒子 女兒, 父亲 母亲, 父親 母親, 爸爸 妈妈, 爸爸 媽媽, 爸 妈, 哥哥 姐姐, 弟弟 妹妹,
兄弟 姐妹, 爷爷 奶奶, 外公 外婆, 叔叔 阿姨, 丈夫 妻子, 老公 老婆, 国王 女王, 國王 女王, 国王 王后, 王子 公主,
先生 女士, 新郎 新娘, 帅哥 美女
"""
_CHINESE_KEPT = """
其他 吉他 排他 利他 维他 他人 他乡 他国 他杀 男女 儿女 兒女 子女 妇女 婦女 处女 處女
"""
_NAMES = ("king", "prince", "duke", "god")  # also surnames and names: "Stephen King", "Dear God"
_NOT_NOUNS = """
about across after again against ago all alone already also always among an and any anymore anyway anything are around
as at away back be because been before behind being below beside between both but by can could did do does down during
each either else even ever every everything for forever from had has have he here how i if in inside instead into is it
just last later many may me might more most much must near never next no nor not nothing now of off often on once only
onto or out outside over past quite rather she should since so some something soon still such than that the their them
then there these they this those though through to today together tomorrow tonight too toward towards twice under unless
until up upon very was we well were what when where which while who whom whose why will with within without would yes
yesterday yet you your my his her its our a
"""
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+(?:'am)?")
_FOLLOWING = re.compile(r"[ \t\n]+(?:[\"“‘]?)([^\W\d_]+|\d)")
_BEFORE = re.compile(r"([^\W\d_]+)[ -]$")


def _both_ways(pairs: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for pair in pairs.replace("\n", " ").split(", "):
        left, right = pair.split()
        for one, other in ((left, right), (right, left)):
            table.setdefault(one.rstrip("+"), other.rstrip("+"))
            if one.endswith("+") and other.endswith("+"):
                table.setdefault(one.replace("+", "s"), other.replace("+", "s"))
    return table


_SWAPPED = _both_ways(_PAIRS) | {"him": "her", "hers": "his"}
_CHINESE = _both_ways(_CHINESE_PAIRS) | {word: word for word in _CHINESE_KEPT.split()}
_FUNCTION_WORDS = frozenset(_NOT_NOUNS.split())
_CHINESE_TERM = re.compile("|".join(sorted(_CHINESE, key=len, reverse=True)))


def swap(text: str) -> str | None:
    """The text with every gendered term exchanged for its counterpart, capitals kept; None if there is none.

    >>> swap("She gave her son his coat, and he thanked her."), swap("A cold day.")
    ('He gave his daughter her coat, and she thanked him.', None)
    >>> swap("他和其他人见了她的儿子。")
    '她和其他人见了他的女儿。'
    """
    swapped = _WORD.sub(_counterpart, text)
    swapped = _CHINESE_TERM.sub(lambda term: _CHINESE[term[0]], swapped)
    return swapped if swapped != text else None


def _counterpart(found: re.Match[str]) -> str:
    word = found[0]
    low = word.lower()
    if low in ("her", "his"):
        owns = _owns(found)
        other = {"her": ("him", "his"), "his": ("hers", "her")}[low][owns]
    elif low not in _SWAPPED or (low in _NAMES and word[0].isupper() and _follows_a_name(found)):
        return word
    else:
        other = _SWAPPED[low]
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def _owns(found: re.Match[str]) -> bool:
    """A word follows that may be part of a noun phrase, so this is a determiner."""
    following = _FOLLOWING.match(found.string, found.end())
    return bool(following) and following[1].lower() not in _FUNCTION_WORDS


def _follows_a_name(found: re.Match[str]) -> bool:
    before = _BEFORE.search(found.string, max(found.start() - 40, 0), found.start())
    return bool(before) and before[1][0].isupper() and before[1].lower() not in _FUNCTION_WORDS | _SWAPPED.keys()
