"""Personal data in known spans: values that are valid and belong to nobody, in the forms of ten locales and in disguise,
and look-alikes that are nobody's."""

# ruff: noqa: E501, SIM905

import random
import string
from collections.abc import Callable

from qualm.text.personal_checks import IBAN_LENGTHS, chinese_id

Rng = random.Random
PHONES = {
    "en-US": ["({a}) {b}-{c}", "{a}-{b}-{c}", "+1 {a} {b} {c}", "+1 ({a}) {b}-{c}", "{a}.{b}.{c}", "1-{a}-{b}-{c}"],
    "en-GB": ["020 7### ####", "+44 20 7### ####", "07### ######", "0161 ### ####", "+44 (0)7### ######"],
    "de-DE": ["030 ########", "+49 30 ########", "0151 ########", "030/#######", "0049 30 #######", "+49-89-######"],
    "fr-FR": ["01 ## ## ## ##", "06.##.##.##.##", "+33 6 ## ## ## ##", "0033 1 ## ## ## ##"],
    "es-ES": ["+34 6## ## ## ##", "+34 91 ### ## ##"],
    "it-IT": ["+39 06 ### ####", "+39 3## ### ####", "06 #### ####"],
    "pt-BR": ["+55 11 9####-####", "(11) 9####-####", "(21) 3###-####"],
    "ru-RU": ["+7 495 ###-##-##", "+7 (9##) ###-##-##"],
    "ja-JP": ["03-3###-####", "090-####-####", "+81 90-####-####"],
    "zh-CN": ["13#########", "+86 13# #### ####", "010-6#######", "(021) 5#######", "0755-2#######", "159-####-####",
              "86-18#########", "138 #### ####"],
}  # fmt: skip
BEFORE = {
    "EMAIL": [
        "Write to {}.",
        "Contact: {} (office)",
        "邮箱：{}，谢谢",
        "请发到{}。",
        "<{}>",
        "mailto:{}",
        "E-Mail {} bitte",
    ],
    "PHONE": [
        "Call {} after six.",
        "Tel: {}",
        "My number is {}, ask for Ann.",
        "电话：{}。",
        "请拨打{}联系我们",
        "Telefon {}",
    ],
    "CARD": ["I paid with {} yesterday.", "Card: {}", "卡号{}，请查收", "{} exp 12/29"],
    "IBAN": ["Transfer it to {} please.", "IBAN: {}", "账户{}。", "Konto {} bei der Bank"],
    "IP": ["Login from {} at noon.", "server {} is down", "来自{}的访问", "host={};"],
    "PASSPORT": ["Passport number {}.", "passport: {} (valid)", "护照号码：{}，", "Reisepass Nr. {}", "护照号{}"],
    "ID": ["ID card {} was shown.", "身份证号：{}。", "身份证{}，", "id={};"],
    "ADDRESS": ["I live at {} now.", "Send it to {}, please.", "地址：{}。", "他住在{}，请寄到那里。", "Adresse: {}"],
    "NAME": [
        "Yesterday {} called again.",
        "I spoke with {} about it.",
        "联系人：{}，今天来过。",
        "我叫{}。",
        "{}, our new head of sales",
    ],
    "URL": ["Clone {} first.", "see {} for it", "地址：{} 。"],
}
SPELLED = dict(zip(string.digits, "zero one two three four five six seven eight nine".split(), strict=True))


def digits(rng: Rng, shape: str) -> str:
    return "".join(str(rng.randrange(10)) if char == "#" else char for char in shape)


def email(rng: Rng) -> str:
    first, last = rng.choice("ann bob li.wei jose maria x".split()), rng.choice("lee novak_1 garcia-b zhang o1".split())
    local = rng.choice(
        (f"{first}.{last}", f"{first}+{last}", first + str(rng.randrange(100)), f"{first}_{last}".upper())
    )
    return f"{local}@{rng.choice(('example.com', 'mail.example.org', 'qq.com', 'uni-x.ac.uk', 'firma.de', '163.com'))}"


def phone(rng: Rng) -> str:
    shape = rng.choice(PHONES[rng.choice(list(PHONES))])
    parts = {"a": rng.randrange(201, 990), "b": rng.randrange(201, 990), "c": f"{rng.randrange(10000):04}"}
    return digits(rng, shape.format(**parts))


def luhn(body: str) -> str:
    total = sum(sum(divmod(int(d) * (2 if i % 2 == 0 else 1), 10)) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def card(rng: Rng) -> str:
    prefix, length = rng.choice(
        (("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("35", 16), ("6222", 19))
    )
    value = luhn(digits(rng, prefix + "#" * (length - 1 - len(prefix))))
    if length == 15:
        return rng.choice((value, f"{value[:4]} {value[4:10]} {value[10:]}", f"{value[:4]}-{value[4:10]}-{value[10:]}"))
    groups = [value[i : i + 4] for i in range(0, length, 4)]
    return rng.choice((value, " ".join(groups), "-".join(groups)))


def iban(rng: Rng) -> str:
    country = rng.choice("DE GB FR ES IT NL CH AT BE PL SE NO DK PT".split())
    length = IBAN_LENGTHS[country]
    bank = "".join(rng.choices(string.ascii_uppercase, k=4)) if country in ("GB", "NL") else ""
    body = digits(rng, bank + "#" * (length - 4 - len(bank)))
    check = 98 - int("".join(str(int(char, 36)) for char in f"{body}{country}00")) % 97
    value = f"{country}{check:02}{body}"
    return rng.choice((value, " ".join(value[i : i + 4] for i in range(0, length, 4))))


def ip(rng: Rng) -> str:
    if rng.random() < 0.3:
        groups = [f"{rng.randrange(16, 65536):x}" for _ in range(7)]
        return rng.choice((f"2001:{':'.join(groups)}", f"2001:db8::{':'.join(groups[:3])}"))
    return f"{rng.randrange(1, 224) | 1}.{'.'.join(str(rng.randrange(256)) for _ in range(3))}".replace(
        "127.", "128.", 1
    )


def passport(rng: Rng) -> str:
    return digits(
        rng, rng.choice(("E########", "G########", "#########", "C01X00T##", "EH#######", "##AB#####", "AA #######"))
    )


def identity(rng: Rng) -> str:
    while True:
        born = f"{rng.randrange(1940, 2015)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}"
        body = f"{rng.choice(('110101', '310115', '440305', '510104', '650102'))}{born}{rng.randrange(1000):03}"
        value = next(body + last for last in "0123456789X" if chinese_id(body + last))
        return rng.choice((value, value.lower(), f"{value[:6]} {value[6:14]} {value[14:]}"))


def url(rng: Rng) -> str:
    key = "".join(rng.choices(string.ascii_letters + string.digits, k=16))
    return rng.choice(
        (f"https://bob:{key}@git.example.com/x.git", f"ftp://ann:{key}@10.1.2.3/", f"https://api.example.com/v1?id=3&token={key}",
         f"postgres://app:{key}@db.example.org:5432/main", f"https://example.org/a/b?api_key={key}&x=1")
    )  # fmt: skip


STREETS = {  # street, house, town; what is made up has the shape of its country
    "en-US": [
        "{h} {w} Street, {t}, OH 4{d}{d}{d}{d}",
        "{h} N. {w} Ave Apt {d}B, {t}, TX 7{d}{d}{d}{d}-1{d}{d}{d}",
        "{h} {w} Road",
        "P.O. Box {h}, {t}, CA 9{d}{d}{d}{d}",
    ],
    "en-GB": [
        "{h} {w} Lane, {t} LS{d} {d}QX",
        "Flat {d}, {h} {w} Gardens, {t} SW1A {d}BB",
        "{h} {w} Close",
        "{h}a {w} Hill Road, {t}, M{d} {d}AE",
    ],
    "de-DE": [
        "{w}straße {h}, 1{d}{d}{d}{d} {t}",
        "{w}weg {h}a",
        "Alte {w}gasse {h}, {d}{d}{d}{d}5 {t} am Main",
        "{w}er Allee {h}",
        "{w}str. {h}, 2{d}{d}{d}{d} {t}",
    ],
    "fr-FR": [
        "{h}, rue de {w}, 7{d}{d}{d}{d} {t}",
        "{h} bis avenue du {w}",
        "{h} boulevard {w}, 3{d}{d}{d}{d} {t}",
        "{d} impasse des {w}s, 6{d}{d}{d}{d} {t}-la-Forêt",
    ],
    "es-ES": [
        "Calle de {w}, {h}, 2{d}{d}{d}{d} {t}",
        "C/ {w} nº {h}",
        "Avda. {w} {h}, 4º B, 0{d}{d}{d}{d} {t}",
        "Plaza {w} {h}",
    ],
    "it-IT": [
        "Via {w} {h}, 2{d}{d}{d}{d} {t}",
        "Piazza {w}, {h}",
        "Corso {w} {h}/A, 1{d}{d}{d}{d} {t} (TO)",
        "Viale dei {w} {h}",
    ],
    "pt-BR": ["Rua {w}, {h}, {t}, 0{d}{d}{d}{d}-{d}{d}{d}", "Avenida {w}, {h} - {t}", "Travessa do {w}, nº {h}"],
    "ru-RU": [
        "ул. Лесная, д. {h}, кв. {d}",
        "г. Тверь, проспект Мира, дом {h}, корп. {d}, кв. {d}{d}",
        "пер. Садовый, {h}",
        "улица Новая, д. {h}, 1{d}{d}{d}{d}{d}",
    ],
    "ja-JP": [
        "東京都新宿区西新宿{d}丁目{d}-{d}",
        "〒1{d}{d}-00{d}{d} 神奈川県横浜市中区本町{d}-{d}{d}",
        "大阪府大阪市北区梅田{d}丁目{d}番{d}号",
        "北海道札幌市中央区大通西{d}丁目{d}",
    ],
    "zh-CN": [
        "北京市海淀区花园路{h}号",
        "广东省深圳市南山区科苑南路{h}号{d}栋{d}0{d}室",
        "上海市徐汇区梧桐街{d}{d}弄{h}号",
        "四川省成都市武侯区桐梓林东路{h}号院{d}号楼{d}单元{d}0{d}",
        "解放大道{h}号",
    ],
}
WORDS = "Birken Linden Falken Rosen Kastell Marble Walnut Orchard Millfield Ravens Thornby Granada Corvino Montes Almeira".split()
TOWNS = "Ashford Newbury Marlow Weston Salerna Bellano Torrente Altena Lindau Belmont Clermont Valmor Ferrol".split()
GIVEN = {
    "en": "Emma Oliver Charlotte James Amelia Henry Sophia Benjamin Evelyn Daniel Harper Samuel Abigail David Emily Joseph Ella Matthew Chloe Andrew".split(),
    "de": "Lukas Hannah Jürgen Ursula Stefan Monika Wolfgang Sabine Klaus Renate Björn Heike".split(),
    "fr": "François Amélie Jean-Pierre Céline Thierry Hélène Étienne Sylvie Benoît Mathilde".split(),
    "es": "José María Carlos Lucía Javier Carmen Andrés Pilar Íñigo Rocío Miguel Sofía".split(),
    "it": "Giuseppe Francesca Giovanni Chiara Matteo Giulia Lorenzo Alessia Paolo Elisabetta".split(),
    "pt": "João Beatriz Thiago Larissa Vinícius Juliana Rafael Mariana Otávio Letícia".split(),
    "ru": "Иван Мария Сергей Ольга Дмитрий Татьяна Алексей Наталья Николай Елена".split(),
}
FAMILY = {
    "en": "Smith Patel O'Connor Whitcombe Lee Garroway Taylor-Jones Hargreave Young Ashdown Brooks Pemberley".split(),
    "de": "Müller Weißhaupt Schneider-Lang Kohlberg Fischer Brandner Vogel Steinhoff".split(),
    "fr": "Dubois Lemercier Moreau Rochefort Garnier Beauchamp Lefèvre".split(),
    "es": "García López|Fernández|Ruiz Montero|Ibáñez|Sánchez de la Torre|Navas".split("|"),
    "it": "Rossi Bellandi Esposito Ferrante De Luca|Marchetti|Conti".replace(" De", "|De")
    .replace(" ", "|")
    .replace("De|", "De ")
    .split("|"),
    "pt": "da Silva|Souza|dos Santos|Carvalho Pinto|Albuquerque|Moura".split("|"),
    "ru": "Иванов Петрова Соколов Берёзкин Лебедева Громов".split(),
}
HAN_FAMILY, HAN_GIVEN = (
    "王李张刘陈杨黄赵吴周徐孙欧",
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英建国子轩雨晨浩宇梓涵欣怡嘉文",
)


def address(rng: Rng) -> str:
    shape = rng.choice(STREETS[rng.choice(list(STREETS))]).format(
        h=rng.randrange(2, 240), w=rng.choice(WORDS), t=rng.choice(TOWNS), d="#"
    )
    return digits(rng, shape.replace("#", "#"))


def name(rng: Rng) -> str:
    language = rng.choice([*GIVEN, "zh", "zh"])
    if language == "zh":
        family = rng.choice(HAN_FAMILY)
        return ("欧阳" if family == "欧" else family) + "".join(rng.sample(HAN_GIVEN, rng.choice((1, 2, 2))))
    given, family = rng.choice(GIVEN[language]), rng.choice(FAMILY[language])
    middle = rng.choice(("", "", f" {rng.choice(string.ascii_uppercase)}.")) if language == "en" else ""
    return f"{given}{middle} {family}"


MAKERS: dict[str, Callable[[Rng], str]] = {
    "EMAIL": email, "PHONE": phone, "CARD": card, "IBAN": iban,
    "IP": ip, "PASSPORT": passport, "ID": identity, "URL": url, "ADDRESS": address, "NAME": name,
}  # fmt: skip


def disguised(kind: str, value: str, rng: Rng) -> str:
    """The value as somebody writes it who does not want it to be found, or a page that mangled it."""
    ways = ["zero width"] if kind == "NAME" else ["zero width", "full width"]
    ways += {"EMAIL": ["brackets", "spoken"], "PHONE": ["words", "dashes"], "CARD": ["single", "line"], "IP": ["defanged"],
             "ID": ["single"]}.get(kind, [])  # fmt: skip
    way = rng.choice(ways)
    if way == "zero width" and kind != "URL" and len(value) > 3:
        at = sorted(rng.sample(range(1, len(value)), 2))
        return value[: at[0]] + "\u200b" + value[at[0] : at[1]] + "\u200d" + value[at[1] :]
    if way == "full width" and kind not in ("URL",):
        return "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalnum() else char for char in value)
    if way == "brackets":
        return value.replace("@", " [at] ").replace(".", " [dot] " if value.count(".") == 1 else ".")
    if way == "spoken" and value.partition("@")[2].count(".") == 1:
        return " at ".join((value.partition("@")[0], value.partition("@")[2].replace(".", " dot ")))
    if way == "words":
        return " ".join(SPELLED[char] for char in value if char.isdigit())
    if way == "dashes":
        return value.replace("-", "\u2011").replace(" ", "\u00a0")
    if way == "single":
        return " ".join(char for char in value if char.isalnum())
    if way == "line":
        return value.replace(" ", "\n", 1)
    if way == "defanged":
        return value.replace(".", "[.]")
    return value


TRAPS: list[Callable[[Rng], str]] = [
    lambda r: digits(r, "Published on 2021-0#-1# and again on 1#.0#.2019."),
    lambda r: digits(r, "ISBN 978-3-16-14####-0 is out of print."),
    lambda r: digits(r, "Version 4.#.#.## fixes it; see section 3.#.#.#."),
    lambda r: digits(r, "Order no. 4###-####-####-###1 was sent at 12:3#:45."),
    lambda r: digits(r, "The sum was 1,2##,###.50 euros, up from 9##,###."),
    lambda r: digits(r, "From 1914-1918 to 1939 - 1945 it stood empty; pages 1#0-1##."),
    lambda r: digits(r, "Coordinates 52.5#####, 13.4##### at 3#.5 degrees."),
    lambda r: digits(r, "checksum 3f#a9c#b7e#d1 of std::map<int, a::b> at 00:1#:22"),
    lambda r: digits(r, "invoice 2021########, item 55######"),
    lambda r: digits(r, "订单号2023############，共3#件，单价¥1##.00，日期2022年1#月0#日。"),
    lambda r: digits(r, "约有13####人参加，占全国的0.##%，比2019年多12####人。"),
    lambda r: digits(r, "Meet me @ noon; use decorator @property or a@b in the matrix A@B."),
    lambda r: digits(r, "https://example.com/page?id=##&sort=asc and http://host:8080/path"),
    lambda r: digits(r, "localhost is 127.0.0.1 with mask 255.255.255.0; bind to 0.0.0.0."),
    lambda r: digits(r, "A passport is needed; bring 2 photos and 35 euros before 2024."),
    lambda r: digits(r, "MAC 00:1A:2B:3C:4D:5E, UUID 123e4567-e89b-12d3-a456-426614174###"),
    lambda r: digits(r, "GDP rose 3.## 4.## 5.## 6.## over 2001 2002 2003 2004 2005"),
    lambda r: digits(r, "phi = 1.618033988749894848204586834365638117720309179##"),
    lambda r: digits(r, "part DE12 3456 of the form GB29 is void"),
    lambda r: digits(
        r, "In 19## Main Street was closed; 1# Chapters follow, and the Long Road Home was a film of 20##."
    ),
    lambda r: (
        "Jordan River and Virginia Beach were flooded; Florence Cathedral, Sydney Opera House and Austin City Limits too."
    ),
    lambda r: "The Mayor of Mark Lane asked Grace Church and Will Power for April Showers on Victoria Station.",
    lambda r: "他们沿着大街走了三公里，张开双手，高兴地说：明天一定去。金山银山，不如绿水青山。",
    lambda r: digits(r, "这条路全长1##公里，有2#号线和3#路公交车，王府井大街很热闹。"),
    lambda r: digits(r, "The rue is closed, the Calle is long, Via Appia is old, and room 1# on floor # is free."),
]


def planted(kind: str, rng: Rng, disguise: float = 0.25) -> tuple[str, str, bool]:
    """(sentence, the value in it, is it in disguise)."""
    value = MAKERS[kind](rng)
    shown = disguised(kind, value, rng) if rng.random() < disguise else value
    frame = rng.choice(BEFORE[kind])
    if kind == "NAME" and value[0] > "\u2e7f":
        frame = rng.choice(
            ("联系人：{}，今天来过。", "我叫{}。", "昨天{}先生又来了。", "{}女士是我们的会计。", "姓名 {}")
        )
    if kind == "PHONE" and shown[:1].isalpha():
        frame = "Call me on {} after six."
    return frame.format(shown), shown, shown != value
