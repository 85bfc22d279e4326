"""Whether a string that looks like personal data is such: checksums, shapes and ranges. "" says no, a value says yes
and is equal for all spellings of one thing."""

import datetime
import ipaddress
import re

# Letters and digits of an IBAN by country (ISO 13616)
_IBANS = """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18
DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26
IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18
NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 TN:24 TR:26
UA:29 VA:22 VG:24 XK:20"""
IBAN_LENGTHS = {part[:2]: int(part[3:]) for part in _IBANS.split()}
_CARD = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}|35[0-9]{14}|(?:2131|1800)[0-9]{11}|62[0-9]{14,17}"
)
_REGIONS = "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82"
_PROVINCES = frozenset(_REGIONS.split())
_NAMES = "zero one two three four five six seven eight nine oh"
_DIGITS = dict(zip(_NAMES.split(), "01234567890", strict=True)) | dict(
    zip("零〇一二三四五六七八九幺", "001234567891", strict=True)
)

_DATE = re.compile(
    r"(?:18|19|20)\d\d([ ./\-])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])(?:[ /\-].*)?"
    r"|(?:0?[1-9]|[12]\d|3[01])([ ./\-])(?:0?[1-9]|[12]\d|3[01])\2(?:19|20)\d\d(?:[ \-].*)?"
    r"|(?:1[89]|20)\d\d[ /\-]{1,3}(?:1[89]|20)\d\d"
)
_DECIMALS = re.compile(r"[0-9]{1,3}\.[0-9]{1,9}(?: [0-9]{1,3}\.[0-9]{1,9}){0,9}")
_NATIONAL = [
    re.compile(shape)
    for shape in (
        r"(?:1[ .\-]?)?\(?[2-9][0-9]{2}\)?[ .\-]{1,2}[2-9][0-9]{2}[ .\-][0-9]{4}",  # North America
        r"(?:86[ \-]?)?1[3-9][0-9][ \-]?[0-9]{4}[ \-]?[0-9]{4}",  # China, mobile
        r"1[3-9][0-9]{2}[ \-][0-9]{3}[ \-][0-9]{4}",
        r"\(?0[1-9][0-9]{1,2}\)?[ \-]{0,2}[2-9][0-9]{2,3}[ \-]?[0-9]{4}",  # China, fixed; Japan; Korea
        r"\(?0[1-9][0-9]{0,4}\)?[ .\-/]{1,2}[0-9]{2,4}[ .\-]?[0-9]{2,4}(?:[ .\-]?[0-9]{2,4}){0,3}",  # trunk 0, groups
        r"00[1-9][0-9 .\-()]{7,20}",
        r"\([0-9]{2,3}\) ?9?[0-9]{4}[ \-][0-9]{4}",  # Brazil and others
    )
]


def email(local: str, host: str) -> str:
    host = host.lower().strip(".-")
    labels = host.split(".")
    good = local and not local.startswith(".") and not local.endswith(".") and ".." not in local
    if not good or len(labels) < 2 or not all(label and label[0] != "-" != label[-1] for label in labels):
        return ""
    top = labels[-1]
    return f"{local}@{host}".lower() if 2 <= len(top) <= 24 and (top.isalpha() or top.startswith("xn--")) else ""


def iban(shown: str) -> tuple[int, str]:
    """(characters of it, the IBAN it begins with): country's length, and remainder 1 modulo 97."""
    length = IBAN_LENGTHS.get(shown[:2].upper(), 0)
    value, at = "", 0
    while at < len(shown) and len(value) < length:
        value += shown[at].upper() if shown[at].isalnum() else ""
        at += 1
    whole = length and len(value) == length and not shown[at : at + 1].isalnum()
    if not whole or int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 != 1:
        return 0, ""
    return at, value


def chinese_id(shown: str) -> str:
    """18 characters: province, date of birth, and the check digit of ISO 7064 MOD 11-2 (GB 11643)."""
    value = re.sub(r"[ \-]", "", shown).upper()
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(value[:17]))
    if value[:2] not in _PROVINCES or value[17] != "10X98765432"[total % 11]:
        return ""
    try:
        born = datetime.date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    except ValueError:
        return ""
    return value if 1850 <= born.year <= 2100 else ""


def card(shown: str) -> str:
    """An issuer's prefix and length, and Luhn's sum."""
    value = "".join(char for char in shown if char.isdigit())
    if not _CARD.fullmatch(value) or len(set(value)) == 1:
        return ""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in value[-2::-2])
    return value if (sum(doubled) + sum(map(int, value[-1::-2]))) % 10 == 0 else ""


def ip(shown: str) -> str:
    """An address of version 4 or 6, but none that is everybody's: loopback, unspecified, a netmask."""
    if ":" in shown and (shown.count(":") < 3 or sum(char.isalnum() for char in shown) < 6):
        return ""  # a time, or two words of a program
    try:
        address = ipaddress.ip_address(shown.replace("[", "").replace("]", ""))
    except ValueError:
        return ""
    netmask = address.version == 4 and address.packed[0] in (0, 255)
    return "" if address.is_loopback or address.is_unspecified or netmask else address.compressed


def passport(shown: str) -> tuple[int, str]:
    """(characters of it, the number): up to two letters, then seven to nine letters and digits, mostly digits."""
    shown = shown.rstrip(" -")
    for part in (shown, shown.rpartition(" ")[0], shown.partition(" ")[0]):
        value = part.replace(" ", "").replace("-", "").upper()
        digits = sum(char.isdigit() for char in value)
        if 6 <= len(value) <= 10 and digits >= 5 and len(value) - digits <= 4:
            return len(part), value
    return 0, ""


def phone(shown: str, said: bool) -> str:
    """A number with a country's code, of a national shape, or of any where a word before it `said` that it is one."""
    value = "".join(char for char in shown if char.isdigit())
    plain = shown.strip()
    if not 7 <= len(value) <= 15 or _DATE.fullmatch(plain) or _DECIMALS.fullmatch(plain) or len(set(value)) == 1:
        return ""
    if shown[0] == "+" or shown[:2] == "(+":
        return value if len(value) >= 8 and value[0] != "0" else ""
    if re.fullmatch(r"97[89][ \-]?[0-9][0-9 \-]{8,12}", shown):  # a book's
        return ""
    if said:
        return value
    return value if any(shape.fullmatch(shown) for shape in _NATIONAL) else ""


def phones(shown: str, said: bool) -> list[tuple[int, int, str]]:
    """(start, end, number) in a run of digits: the whole, or else what stands between spaces and has a shape."""
    if value := phone(shown, said):
        return [(0, len(shown), value)]
    if _DATE.fullmatch(shown.strip()):
        return []
    found = list[tuple[int, int, str]]()
    for shape in _NATIONAL[:4]:  # the strict ones
        for part in shape.finditer(shown):
            alone = shown[: part.start()][-1:] in ("", " ") and shown[part.end() : part.end() + 1] in ("", " ")
            if alone and not any(part.start() < end and start < part.end() for start, end, _ in found):
                found.append((part.start(), part.end(), phone(part[0], False)))
    return found


def spelled(shown: str) -> str:
    """Digits that are written as words; `double` says the next one twice."""
    value, twice = "", False
    for word in re.findall(r"[a-z]+|[零〇一二三四五六七八九幺]", shown.lower()):
        digit = _DIGITS.get(word, "")
        value += digit * (2 if twice else 1)
        twice = word == "double"
    return value if 7 <= len(value) <= 15 else ""
