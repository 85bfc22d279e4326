"""Spelling: what is mended and what is harmed, on planted errors: `python benchmarks/spelling.py [MODEL ...]`.

Text: Python's own manual, as help() shows it (prose with code, names and numbers in it), with Chinese words, names,
addresses and quantities put between. In a share of its plain words one error each is planted from a seed: a letter
too many, one too few, two exchanged, one replaced by its neighbour on the keyboard; and, counted apart, errors that
make another real word. Then three things are compared: SymSpell alone, unguarded (every word that the dictionary does
not know); SymSpell with the protections; and its candidates weighed by each MODEL (`fake:`, a folder, pypi:...).

error rate: planted words that are still wrong, of all planted. harm rate: words that were right and are no longer, of
all words that were right, protected ones included. 95 % intervals are Wilson's.
"""

import argparse
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics

import qualm
from qualm.auditing.stats import wilson
from qualm.lm.base import LM
from qualm.text.spell import Change, Dictionary, Spelling, apply, correct, english
from qualm.text.tidy import whole_sentences

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: {
        KEYS[r][c]
        for r, c in ((row, i - 1), (row, i + 1), (row - 1, i), (row - 1, i + 1), (row + 1, i - 1), (row + 1, i))
        if 0 <= r < len(KEYS) and 0 <= c < len(KEYS[r])
    }
    for row, keys in enumerate(KEYS)
    for i, key in enumerate(keys)
}  # each row stands half a key to the right of the one above
MIXED = (
    "昨天 Kubernetes 的节点 nod-07 掉线了，请看 https://stauts.example.cn/inidents。",
    "Prof. Anneliese Wójcik-Brandt of Göttingen replied from a.wojcik@uni-goettnigen.de.",
    "李娜和 Thandiwe 一起写了 readme 的第二节。",
    "Use `git comit --amned` or edit ~/.confg/setings.toml by hand.",
    "UNESCO and the IMF agreed on £12,075.00 by 17:45 on 3/11/2023.",
    "Call recieveAll(bufer, tiemout=30) before del self._chache[idx].",
    "版本（relese-3.1）修复了 12 个问题。",
    "Mr. Adeyemi moved from Kraków to Llanelli with J. R. Hartono.",
)  # what must not be touched
LONGEST = 900  # characters of a passage
SHARE = 0.08  # of the plain words
PLAIN = re.compile(r"(?<![\w.'`\"/*<:=@-])[a-z]{3,}(?![\w'`\"/*>:=(@-]|\.\w)")


@dataclass(frozen=True)
class Planted:
    """A text with errors: for each word of `right`, what stands in its place and whether that is a word itself."""

    text: str
    errors: dict[int, tuple[str, str, bool]]  # number of the word: as it was, as it is, whether that is a real word


def words(text: str) -> list[str]:
    return text.split()


def error(word: str, draw: random.Random) -> str:
    """One edit, never of the first letter's case."""
    kind, at = draw.choice(("insert", "delete", "exchange", "neighbour")), draw.randrange(len(word))
    if kind == "insert":
        return word[:at] + draw.choice("abcdefghijklmnopqrstuvwxyz") + word[at:]
    if kind == "delete":
        return word[:at] + word[at + 1 :]
    if kind == "exchange":
        at = min(at, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + draw.choice(sorted(NEIGHBOURS[word[at]])) + word[at + 1 :]


def passages(count: int, seed: int, file: Path | None = None) -> list[str]:
    """Paragraphs of the manual or of a file, each second one followed by a line of what must not be touched."""
    draw = random.Random(seed)
    texts = [topics[name] for name in sorted(topics)] if file is None else [file.read_text(encoding="utf-8")]
    blocks = [block.strip() for text in texts for block in re.split(r"\n\s*\n", text)]
    prose = (" ".join(block.split()) for block in blocks if not block.startswith(("*", "-", ">", "+", "|")))
    short = (block if len(block) < LONGEST else whole_sentences(block[:LONGEST]) for block in prose)
    fit = [block for block in dict.fromkeys(short) if len(block) > LONGEST // 4 and "::" not in block]
    chosen = draw.sample(fit, min(count, len(fit)))
    return [f"{b} {draw.choice(MIXED)}" if i % 2 else b for i, b in enumerate(chosen)]


def planted(text: str, known: Dictionary, draw: random.Random) -> Planted:
    """A text with an error in a share of its plain lower-case words that the dictionary knows."""
    errors, out = {}, words(text)
    for i, word in enumerate(out):
        match = PLAIN.search(word)
        if not match or match[0] not in known or draw.random() >= SHARE:
            continue
        wrong = next(w for w in iter(lambda: error(match[0], draw), "") if w != match[0])  # noqa: B023
        out[i] = word[: match.start()] + wrong + word[match.end() :]
        errors[i] = (word, out[i], wrong in known)
    return Planted(" ".join(out), errors)


@dataclass
class Tally:
    """Errors that make no word, those that make one, and right words: how many there are, and how many end wrong."""

    nonwords: int = 0
    nonwords_wrong: int = 0
    real: int = 0
    real_wrong: int = 0
    right: int = 0
    harmed: int = 0

    def add(self, before: str, given: Planted, after: str) -> None:
        old, new = words(before), words(after)
        assert len(old) == len(new), "a correction split or joined words"
        for i, (was, now) in enumerate(zip(old, new, strict=True)):
            if i not in given.errors:
                self.right, self.harmed = self.right + 1, self.harmed + (was != now)
            elif given.errors[i][2]:
                self.real, self.real_wrong = self.real + 1, self.real_wrong + (was != now)
            else:
                self.nonwords, self.nonwords_wrong = self.nonwords + 1, self.nonwords_wrong + (was != now)

    def rows(self) -> Iterator[str]:
        for name, wrong, of in (
            ("error rate, no words", self.nonwords_wrong, self.nonwords),
            ("error rate, real words", self.real_wrong, self.real),
            ("harm rate", self.harmed, self.right),
        ):
            low, high = wilson(wrong, of)
            yield f"  {name}: {100 * wrong / max(1, of):.2f} % [{100 * low:.2f}, {100 * high:.2f}] ({wrong} of {of})"


def scorer(lm: LM):
    """The model's log-probabilities of what follows, in nats."""
    return lambda pairs: [scored.total for scored in lm.score(pairs)]


def unguarded(text: str, known: Dictionary) -> list[Change]:
    """What a plain use of SymSpell changes: every word of letters that the dictionary does not know."""
    found = []
    for match in re.finditer(r"[A-Za-z]+", text):
        near = known.near(match[0].lower(), 1)
        if match[0].lower() not in known and near:
            found.append(Change(*match.span(), match[0], near[0].word))
    return found


def compare(texts: Sequence[str], models: dict[str, LM], spelling: Spelling, seed: int) -> dict[str, Tally]:
    known, draw = english(), random.Random(seed)
    given = [planted(text, known, draw) for text in texts]
    wrong = [g.text for g in given]
    ways = {
        "as typed": lambda: [[] for _ in wrong],
        "SymSpell alone, unguarded": lambda: [unguarded(t, known) for t in wrong],
    }
    ways["SymSpell, protected"] = lambda: correct(wrong, None, spelling, known)
    for name, lm in models.items():
        plain = replace(spelling, real_words=False)
        ways[f"weighed by {name}"] = lambda lm=lm, plain=plain: correct(wrong, scorer(lm), plain, known)
        if spelling.real_words:
            ways[f"weighed by {name}, real words too"] = lambda lm=lm: correct(wrong, scorer(lm), spelling, known)
    found = {}
    for name, way in ways.items():
        began, tally = time.perf_counter(), Tally()
        for text, each, changes in zip(texts, given, way(), strict=True):
            tally.add(text, each, apply(each.text, changes))
        found[name] = tally
        print(f"{name} ({time.perf_counter() - began:.1f} s)", *tally.rows(), sep="\n", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--text", type=Path, help="a file of English paragraphs in place of the manual")
    parser.add_argument("--real-words", action="store_true", help="also weigh words of the dictionary: slow")
    parser.add_argument("--passages", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    for name, value in (("margin", Spelling.margin), ("edit", Spelling.edit), ("real-margin", Spelling.real_margin)):
        parser.add_argument(f"--{name}", type=float, default=value)
    asked = parser.parse_args()
    spelling = Spelling(asked.margin, asked.edit, asked.real_words, asked.real_margin)
    models = {name: qualm.load(name) for name in asked.models}
    compare(passages(asked.passages, asked.seed, asked.text), models, spelling, asked.seed)


if __name__ == "__main__":
    main()
