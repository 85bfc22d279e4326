"""Postal addresses and names of persons in a text: by the words that streets have, and by a gazetteer.

Patterns are those of ten countries and what is written like them. They want a house number beside a word for a street,
so that streets and squares that are only spoken of stay. A name is a given name of the list and a capital behind it, a
title and a capital, or a Chinese surname and one or two characters of given names beside a word that says so. What is
missed: given names that are not on the list, and persons who are called by one name.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

Spans = Iterator[tuple[int, int, str]]

_EDGE = r"(?<![0-9A-Za-z_.\u00c0-\u052f’])"  # Chinese may stand right before it
_WORD = r"[A-Z\u00c0-\u00de\u0391-\u042f][\w'’.\-]{0,24}"
_WORDS = (
    rf"{_WORD}(?: (?:(?:of|the|de|la|le|les|los|las|del|della|dei|da|das|do|dos|du|des|von|van|der|den|e|et|y) ){{0,2}}"
    rf"{_WORD}){{0,3}}"
)
_PARTICLES = (
    r"(?:(?:de|la|los|las|du|des|le|les|da|das|do|dos|del|della|dei|delle|di|dal|von|der) |dell['’]|[ld]['’]){0,3}"
)
_NUMBER = r"\d{1,5}(?: ?[A-Za-z]\b)?(?:[\-/](?:\d{1,4}[A-Za-z]?|[A-Za-z]\b))?"
_NO = r",? ?(?:n[º°o]\.? ?|nr\.? ?|num(?:ero|éro)?\.? ?)?"
_TOWN = rf" {_WORD}(?:[ \-](?:(?:am|an|im|in|bei|der|dem|sur|sous|la|le|les|de|del|di|do|da) ){{0,2}}{_WORD}){{0,2}}"
_UNIT = (
    r"(?:,? (?i:apt|apartment|suite|ste|unit|flat|floor|room|étage|piso|puerta|piano|interno|int|scala|appartement|appt"
    r"|appartamento|bloco|apto)\b\.? ?#?[\w\-]{1,6}|,? #\d{1,5})?"
)
_UK = r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}"
_POST = (
    rf"(?:{_UK}|[A-Z]{{2}},? \d{{5}}(?:-\d{{4}})?|(?:CEP:? ?)?\d{{5}}-?\d{{3}}"
    r"|(?:[A-Z]{1,2}-)?\d{4,5}(?:-\d{4})?)\b"
)
_TAIL = rf"(?:(?: ?[,–-]{_TOWN}){{0,3}} ?,? {_POST}(?:,?{_TOWN})?(?: ?[(/] ?[A-Z]{{2}}\)?)?)?"
_STREET = (
    r"Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Crescent"
    r"|Close|Parkway|Pkwy|Highway|Hwy|Row|Gardens|Grove|Mews|Circle|Cir|Trail|Plaza|Turnpike|Alley|Pass|Path|Run|Loop"
)
_STRASSE = "straße|strasse|str\\.|weg|platz|allee|gasse|ufer|damm|chaussee"
_STRASSE_APART = "Ring|" + "|".join(part.capitalize() for part in _STRASSE.split("|"))  # Alte Gasse, but Platz 3
_RUE = r"rue|avenue|av\.|boulevard|bd|place|impasse|allée|chemin|quai|cours|passage|route|square"
_CALLE = (
    r"Calle|C/|Avenida|Avda\.?|Av\.|Plaza|Paseo|Camino|Ronda|Carrer|Glorieta|Pasaje|Cuesta|Callejón|Rua|R\.|Travessa|Praça"
    r"|Alameda|Estrada|Largo|Ladeira|Via|Viale|V\.le|Piazza|P\.zza|Corso|Vicolo|Strada|Borgo|Contrada"
)
_ULITSA = (
    r"ул\.|улица|проспект|просп\.|пр\.|пр-т|переулок|пер\.|площадь|пл\.|набережная|наб\.|бульвар|бул\.|б-р|шоссе|ш\."
    r"|алл\."
)
_HAN, _KANA = r"\u4e00-\u9fff", r"\u3041-\u30ff"
_PLACE = r"[^\W\da-zA-Z在住于於到是为為的了至往址寄从從和與与、]"  # of a name; a verb or a particle ends it
_FLAT = r"(?:Flat|Unit|Apartment|Studio)"
_NO_YEAR = r"(?<!\b[Ii]n )(?<!\b[Oo]f )(?<![Ss]ince )"
_BY_COUNTRY = {
    "English": rf"{_EDGE}{_NO_YEAR}(?:{_FLAT} \d{{1,4}}[a-zA-Z]?,? )?{_NUMBER} (?:[NSEW]\.? )?"
    rf"(?:(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th)) ){{1,4}}?(?:{_STREET}|{_STREET.lower()})\b\.?(?: [NSEW][EW]?\b)?"
    rf"{_UNIT}{_TAIL}",
    "British": rf"{_EDGE}(?:{_FLAT} )?\d{{1,4}}[a-zA-Z]?,? {_WORD}(?: [a-zA-Z]\w{{2,20}}){{0,3}},"
    rf"(?:{_TOWN},){{0,2}}(?:{_TOWN})?,? {_UK}\b",
    "American": rf"{_EDGE}\d{{1,5}} {_WORD}(?: {_WORD}){{1,3}}{_UNIT},{_TOWN}, [A-Z]{{2}},? \d{{5}}(?:-\d{{4}})?\b",
    "a box": _EDGE + r"[Pp]\.? ?[Oo]\.? [Bb]ox \d{1,6}(?:, ?[\w ]{2,30}, [A-Z]{2} \d{5})?",
    "German": rf"{_EDGE}(?:(?:[A-ZÄÖÜ][\w\-]{{0,24}}[ \-])?[A-ZÄÖÜ][\w\-]{{0,24}}?(?:{_STRASSE})"
    rf"|(?!(?:Der|Die|Das|Den|Dem|Auf|Am|Im|Um|Von|Ein|Eine) )[A-ZÄÖÜ][\w\-]{{0,24}}[ \-]"
    rf"(?:{_STRASSE_APART})) {_NUMBER}{_TAIL}",
    "French": rf"{_EDGE}\d{{1,4}}(?: ?(?:bis|ter|quater)\b)?,? (?:{_RUE}) {_PARTICLES}{_WORDS}{_TAIL}",
    "Romance": rf"{_EDGE}(?:{_CALLE}) ?{_PARTICLES}{_WORDS}{_NO}{_NUMBER}(?:, ?\d{{1,2}}[ºª°]? ?[A-Z]?\b)?"
    rf"{_UNIT}(?: [–-]{_TOWN})?{_TAIL}",
    "Russian": rf"(?:(?:г\.|город|с\.|д\.|п\.|пос\.) ?[\w\-]{{2,20}}, )?(?:{_ULITSA}) ?[\w\-]{{2,25}}"
    r"(?: [\w\-]{2,25}){0,2},? (?:д\.|дом|д)? ?\d{1,4}[а-яА-Я]?(?:/\d{1,3})?"
    r"(?:,? (?:корп\.|корпус|к\.|стр\.) ?\d{1,3}(?:/\d{1,3})?)?(?:,? (?:кв\.|квартира|офис) ?\d{1,4})?(?:, \d{6})?",
    "Japanese": rf"(?:〒? ?\d{{3}}-\d{{4}}[ 、,]?)?(?:東京都|北海道|京都府|大阪府|[{_HAN}]{{2,3}}県)"
    rf"(?:[{_KANA}{_HAN}]{{1,10}}[区市町村郡]){{1,3}}[{_KANA}{_HAN}]{{0,10}}"
    rf"\d{{1,4}}(?:丁目|番地?|号|-\d{{1,4}}|\d{{1,3}}){{1,6}}(?: [{_KANA}{_HAN}ー]{{2,14}}\d{{1,4}})?",
    "Chinese": rf"(?:\d{{3,5}} ?)?(?:{_PLACE}{{2,7}}(?:省|自治区|自治區))?(?:{_PLACE}{{2,7}}[市州盟])?"
    rf"(?:{_PLACE}{{1,6}}[区區县縣旗镇鎮])?{_PLACE}{{1,10}}(?:路|街|大道|巷|弄|胡同|里)(?:[{_HAN}\d]{{1,2}}段)?"
    r"\d{1,5}[号號弄](?:之\d{1,3})?(?:院|楼)?(?:\d{1,4}(?:号楼|號樓|栋|棟|幢|座|号))?"
    r"(?:\d{1,3}单元(?:\d{1,4}(?![\d年月日个人元]))?)?(?:\d{1,3}[层樓楼])?(?:\d{1,5}(?:室|房|户)|室|房|户)?",
    "Korean": r"(?:[가-힣]{2,8}(?:특별시|광역시|시|도) )(?:[가-힣]{1,6}(?:구|군|시) ){1,2}"
    r"[가-힣0-9]{1,12}(?:로|길|거리|가) ?\d{1,4}(?:-\d{1,3})?(?:,? [가-힣]{0,8} ?\d{1,4}동 ?\d{1,4}호)?"
    r"(?: \([가-힣0-9]{1,20}\))?",
}
_ADDRESSES = tuple(re.compile(pattern) for pattern in _BY_COUNTRY.values())


def addresses(text: str) -> Spans:
    for pattern in _ADDRESSES:
        for found in pattern.finditer(text):
            yield found.start(), found.end(), " ".join(found[0].casefold().split())


_LINK = r"(?:de|la|van|von|der|den|da|dos|del|di|bin|al|le|ter|af|zu|ben)"
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Herr|Frau|Monsieur|Madame|Mme|Mlle|(?<!\w )M\.|Señor|Señora|Sr"
    r"|Sra|Srta|Signor|Signora|Sig|Dott|Senhor|Senhora|Don|Doña)"
)
_TITLED = re.compile(rf"\b{_TITLE}\.? ((?:[A-Z]\.|{_WORD})(?:[ \-](?:{_LINK} ){{0,2}}(?:[A-Z]\.|{_WORD})){{0,3}})")
_PAIR = re.compile(rf"{_EDGE}({_WORD})((?:[ \-](?:[A-Z]\.|{_WORD}|{_LINK}(?= ))){{1,5}})")
_NEXT = re.compile(rf"[ \-](?:(?:[A-Z]\.|{_LINK}) ){{0,3}}([^\W\d_][\w'’\-]*)")
_CHINESE_TITLE = (
    "先生|女士|小姐|同学|老师|教授|医生|律师|经理|总经理|主任|师傅|院长|校长|局长|警官|同志|博士|工程师|太太|阿姨|叔叔"
)
_CHINESE_VERB = "表示|告诉|认为|介绍|住在|来自"
_CHINESE_SAID = (
    "姓名|名字|联系人|收件人|收货人|户主|患者|被告|原告|申请人|持卡人|我叫|名叫|叫做|本人|法定代表人|负责人|作者|记者"
)


@cache
def gazetteer(kind: str) -> frozenset[str]:
    """The words of a section of names.txt: given, places, surnames, common, chinese-surnames, chinese-given."""
    found, here = set[str](), False
    for line in (resources.files("qualm.text") / "names.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            here = line == f"[{kind}]"
        elif here and not line.startswith("#"):
            found.update(line.split())
    return frozenset(found)


_PATRONYMIC = re.compile(  # Иванов Иван Иванович, Иван Иванович Иванов
    _EDGE + r"(?:[А-ЯЁ][а-яё]{1,24} ){1,2}[А-ЯЁ][а-яё]{1,20}(?:ович|евич|ьич|мич|овна|евна|ична)\b"
    r"(?: [А-ЯЁ][а-яё]{1,24}(?:ов|ев|ин|ий|ова|ева|ина|ая|ко|ук|юк)\b)?"
)


def names(text: str) -> Spans:
    for found in _PATRONYMIC.finditer(text):
        yield found.start(), found.end(), found[0].casefold()
    for found in _TITLED.finditer(text):
        yield found.start(1), *_ended(text, found.start(1), found.end(1))
    for found in _PAIR.finditer(text):
        yield from _paired(text, found)
    yield from _chinese(text)


def _paired(text: str, found: re.Match[str]) -> Spans:
    """A given name, and what follows it with a capital: a surname unless it is a word for a place or a thing."""
    given, places, surnames = gazetteer("given"), gazetteer("places"), gazetteer("surnames")
    start = found.start(1)
    for word in re.finditer(r"[^\W\d_][\w'’\-]*", found[0]):
        rest = found[0][word.end() :]
        follows = _NEXT.match(rest)
        if not follows:
            continue
        first, last = word[0], follows[1].split("-")[0]
        known = given.issuperset(first.split("-")) and (first not in places or last in surnames)
        if (known and last not in gazetteer("common") and last[0].isupper()) or (
            first in surnames and last in given - places
        ):
            yield start + word.start(), *_ended(text, start + word.start(), found.end())
            return


def _ended(text: str, start: int, end: int) -> tuple[int, str]:
    """Where a name ends: before a word that is none, a sentence's full stop and a possessive; and what it is."""
    shown = text[start:end]
    parts = re.split(r"( )", shown)
    kept = parts[:1]
    for i in range(2, len(parts), 2):
        if parts[i] in gazetteer("common"):
            break
        kept += parts[i - 1 : i + 1]
        if parts[i].endswith(".") and len(parts[i]) > 2:
            break
    shown = re.sub(r"(?:['’]s?|(?<!\b[A-Z])\.)$", "", "".join(kept))
    shown = re.sub(rf" {_LINK}$", "", shown)
    return start + len(shown), shown.casefold()


@cache
def _chinese_patterns() -> tuple[re.Pattern[str], ...]:
    double = "|".join(sorted(s for s in gazetteer("chinese-surnames") if len(s) == 2))
    single = "".join(sorted(s for s in gazetteer("chinese-surnames") if len(s) == 1))
    given = "".join(sorted(gazetteer("chinese-given")))
    family = f"(?:{double}|[{single}])"
    before = r"(?<![\u4e00-\u9fff])"
    return (
        re.compile(rf"({family}[{given}]{{1,2}})(?:{_CHINESE_TITLE})"),
        re.compile(rf"(?:{before}|(?<=[和与跟对给请让被是叫天向由从位、]))({family})(?:{_CHINESE_TITLE})"),
        re.compile(rf"(?:{_CHINESE_SAID})[是为：: ]{{0,2}}({family}[\u4e00-\u9fff]{{1,2}})(?![\u4e00-\u9fff])"),
        re.compile(rf"(?:{_CHINESE_SAID})[是为：: ]{{0,2}}({family}[{given}]{{1,2}})"),
        re.compile(rf"{before}({family}[{given}]{{2}})(?=[，,：:。、）)（( \n说和与在的是]|{_CHINESE_VERB}|\Z)"),
    )


def _chinese(text: str) -> Spans:
    for pattern in _chinese_patterns():
        for found in pattern.finditer(text):
            yield found.start(1), found.end(1), found[1]
