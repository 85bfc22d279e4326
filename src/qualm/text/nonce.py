"""Pronounceable inventions: words and names that a person can read and that mean nobody and nothing real."""

import random

ONSETS = (
    *("b", "br", "d", "dr", "f", "g", "gr", "j", "k", "kl", "l", "m", "n"),
    *("p", "pl", "qu", "r", "s", "sk", "st", "t", "tr", "v", "vr", "z"),
)
NUCLEI = ("a", "e", "i", "o", "u", "ae", "ei", "ou")
CODAS = ("l", "m", "n", "r", "s", "th", "nd", "rk", "lt", "x")
ENDINGS = {
    "given": ("a", "in", "el", "ix", "or", "une"),
    "family": ("ard", "esk", "olt", "ume", "ivar", "andle"),
    "town": ("wick", "holm", "mere", "stow", "gate"),
    "trade": ("wright", "smith", "ster", "monger"),
    "firm": ("ex", "co", "tal", "ora"),
    "thing": ("et", "im", "ock", "ule"),
    "deed": ("ify", "ate"),
}
CHINESE = {
    "family": "岚湛郗芈亓璩逯郏",
    "given": "霁珩翎澈玥霖琮曜泓宸岫禾",
    "town": "洲浦陵岭渡汀",
    "place": "檀鹭萤桐砚棠笙竺",
}


def words(kind: str, count: int, rng: random.Random, taken: set[str]) -> list[str]:
    """`count` different inventions of a kind (a key of ENDINGS), none of them in `taken`, which grows by them.

    Names begin with a capital, trades, things and deeds do not.
    """
    made: list[str] = []
    while len(made) < count:
        stem = rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS)
        word = stem + rng.choice(ENDINGS[kind])
        word = word if kind in ("trade", "thing", "deed") else word.capitalize()
        if word.lower() not in taken:
            taken.add(word.lower())
            made.append(word)
    return made


def chinese_names(count: int, rng: random.Random) -> list[str]:
    """Invented Chinese personal names of three characters, all different."""
    family, given = CHINESE["family"], CHINESE["given"]
    every = [f + a + b for f in family for a in given for b in given if a != b]
    return rng.sample(every, count)


def chinese_towns(count: int, rng: random.Random) -> list[str]:
    """Invented Chinese place names of two characters, all different."""
    return rng.sample([a + b for a in CHINESE["place"] for b in CHINESE["town"]], count)
