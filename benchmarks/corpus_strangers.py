"""How much personal data is found that was written by somebody else's program: Faker's values of twelve locales.

    pip install faker; python benchmarks/corpus_strangers.py [values of each kind and locale] [seed]

Prints a line a locale: the share of values whose letters and digits were all found, by kind; then how many characters
are left of all. Faker makes up words for streets that no country has, and some of its account numbers are not valid;
lines of an address are joined by commas, as people write them.
"""

import random
import sys
from collections import defaultdict

from faker import Faker

from qualm.text import personal

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "pt_BR", "ru_RU", "ja_JP", "ko_KR", "zh_CN", "zh_TW")
FRAMES = {
    "PHONE": {"zh": "请拨打{}联系我们。", "ja": "電話番号は{}です。", "ko": "전화: {}", "en": "Tel: {} at any time."},
    "ADDRESS": {"zh": "他住在{}，请寄到那里。", "ja": "住所：{}", "ko": "주소: {}", "en": "They live at {} now."},
    "NAME": {"zh": "联系人：{}，今天来过。", "en": "We met {} on Monday."},
    "EMAIL": {"zh": "邮箱：{}。", "en": "Write to {} please."},
    "IBAN": {"en": "Transfer it to {} please."},
    "CARD": {"en": "I paid with {} yesterday."},
}
MAKE = {
    "PHONE": "phone_number",
    "ADDRESS": "address",
    "NAME": "name",
    "EMAIL": "email",
    "IBAN": "iban",
    "CARD": "credit_card_number",
}
NAMED = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "pt_BR", "ru_RU", "zh_CN", "zh_TW")


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    count, seed = [*numbers, *(200, 0)[len(numbers) :]]
    random.seed(seed)
    Faker.seed(seed)
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    print(f"{'locale':8}" + "".join(f"{kind:>9}" for kind in MAKE))
    missed = []
    for locale in LOCALES:
        fake, cells = Faker(locale), []
        for kind, maker in MAKE.items():
            if kind == "NAME" and locale not in NAMED:
                cells.append("")
                continue
            right = 0
            for _ in range(count):
                value = ", ".join(getattr(fake, maker)().split("\n"))
                frames = FRAMES[kind]
                text = frames.get(locale[:2], frames["en"]).format(value)
                at = text.index(value)
                found = {p for hit in personal.find(text, personal.KINDS) for p in range(hit.start, hit.end)}
                letters = {p for p in range(at, at + len(value)) if text[p].isalnum()}
                right += letters <= found
                missed += [f"{locale} {kind} {value}"] if not letters <= found else []
                for i, each in enumerate((1, letters <= found, len(letters), len(letters - found))):
                    totals[kind][i] += each
            cells.append(f"{right / count:.3f}")
        print(f"{locale:8}" + "".join(f"{cell:>9}" for cell in cells), flush=True)
    print(f"{'all':8}" + "".join(f"{t[1] / t[0]:9.3f}" for t in totals.values()))
    print(f"{'left':8}" + "".join(f"{t[3] / t[2]:9.2%}" for t in totals.values()))
    if "-v" in sys.argv:
        print(*missed, sep="\n")
    random.shuffle(missed)
    print("for example:", *missed[:12], sep="\n  ")


if __name__ == "__main__":
    main()
