"""How much does each filter find, and how much does it get wrong? On text with faults at known places, from seeds.

    python benchmarks/corpus_faults.py [documents] [seed]

Prints a line a filter: what was planted, what was found, what of that was right; then how near-duplicates fare by their
edit rate, and personal data by kind with the share of its characters that are left. What counts as right is said where
it is not plain. `documents` (600) are those of the clean base; faults come on top.
"""

# ruff: noqa: E501

import random
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import corpus_personal as personal_text
import corpus_text as text

from qualm.corpus import Cleaning, Deduping, Document, Filtering, clean, dedup, filter_
from qualm.corpus.notes import Note
from qualm.files import write_text
from qualm.text import personal
from qualm.text.grams import grams, words
from qualm.text.prose import paragraphs

RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
SAME, APART = 0.8, 0.6  # similarity from which a copy must be dropped, and below which it must not


@dataclass(frozen=True)
class Score:
    """Of `planted` faults, `right` are among the `found`."""

    filter: str
    planted: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else float("nan")

    def __str__(self) -> str:
        counts = f"{self.planted:8}{self.found:8}{self.right:8}"
        return f"{self.filter:34}{counts}{self.precision:11.3f}{self.recall:8.3f}"


def scored(name: str, planted: set[str], found: set[str], unjudged: Iterable[str] = ()) -> Score:
    found = found - set(unjudged)
    return Score(name, len(planted), len(found), len(planted & found))


def dropped_by(step: Callable, documents: list[Document], settings: object) -> dict[str, Note]:
    notes: dict[str, Note] = {}
    for _ in step(documents, settings, lambda note: notes.__setitem__(note.id, note) if note.dropped else None):
        pass
    return notes


def base(count: int, seed: int) -> list[Document]:
    return [Document(f"base {i} {language}", made) for i, (language, made) in enumerate(text.documents(count, seed))]


def shuffled(documents: list[Document], rng: random.Random) -> list[Document]:
    made = list(documents)
    rng.shuffle(made)
    return made


# --- clean


def spoilt(made: str, way: str, rng: random.Random) -> str:
    """A text as a page, an editor or a converter leaves it; cleaning must give it back."""
    if way == "html":
        made = made.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        body = "\n\n".join(f"<p class='t'>{part}</p>" for part in made.split("\n\n"))
        return f"<html><head><style>p {{ x: 1 }}</style></head><body><!-- ad -->{body}<script>var a = '<b>';</script></body></html>"
    if way == "invisible":
        at = sorted(rng.sample(range(1, len(made)), 5), reverse=True)
        for place, char in zip(at, "\u200b\ufeff\u00ad\x07\u202e", strict=True):
            made = made[:place] + char + made[place:]
        return made.replace("\n", "\r\n")
    if way == "composed":
        return unicodedata.normalize("NFD", made.replace("the ", "thé ").replace("，", "é，"))
    if way == "width":
        return "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalnum() else char for char in made)
    return made.replace(" ", "  ").replace("，", "，\u3000\u3000").replace("\n\n", "  \n\n\n\n") + "\n\n"


WAYS = ("html", "invisible", "composed", "width", "spaces")
UNTOUCHED = [
    "👨\u200d👩\u200d👧 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "می\u200cخواهم بروم", "क्\u200dष", "if a < b and c > d:\n    return a", "R&D and AT&T, x<y>z",
    "他说：“好，我们走吧！”", "Tab<unk> and <EMAIL_1>", "def f(x):\n    return x  # two", "中文，English 混排 is 好的。", "1. one\n2. two\n\n- three",
]  # fmt: skip


def cleaning(documents: list[Document], rng: random.Random) -> list[Score]:
    scores = []
    for way in WAYS:
        pairs = []
        for i, document in enumerate(documents):
            plain = document.text
            if way == "composed":
                plain = plain.replace("the ", "thé ").replace("，", "é，")
            elif way == "spaces":
                plain = plain.replace("，", "， ")
            if way == "width" and document.id.endswith("zh"):
                plain = f"2021 A4 {plain}"
            wrong = spoilt(plain if way == "width" else document.text, way, rng) if i % 4 < 2 else plain
            pairs.append((plain, wrong, i % 4 < 2))
        made = list(clean([Document(str(i), given) for i, (_, given, _) in enumerate(pairs)], Cleaning(boilerplate=0)))
        faulty = sum(was for _, _, was in pairs)
        rows = list(zip(pairs, made, strict=True))
        changed = sum(document.text != given for (_, given, _), document in rows)
        right = sum(was and document.text == plain for (plain, _, was), document in rows)
        scores.append(Score(f"clean: {way}, restored exactly", faulty, changed, right))
    kept = [Document(str(i), given) for i, given in enumerate(UNTOUCHED)]
    same = sum(a.text == b.text for a, b in zip(kept, clean(kept, Cleaning(boilerplate=0)), strict=True))
    return [*scores, Score("clean: left as they should be", len(kept), len(kept), same)]


def boilerplate(documents: list[Document], rng: random.Random) -> Score:
    """Right: a line that was planted, and is gone."""
    planted, given = 0, []
    for document in documents:
        lines = document.text.split("\n")
        for line in rng.sample(text.BOILERPLATE[: max(len(documents) // 15, 2)], rng.choice((0, 1, 2))):
            lines.insert(rng.choice((0, len(lines))), line.replace("3", str(rng.randrange(1, 12))))
            planted += 1
        given.append(Document(document.id, "\n".join(lines)))
    kept, cut, right = list(clean(given, Cleaning())), 0, 0
    for before, after in zip(given, kept, strict=True):
        gone = Counter(before.text.split("\n")) - Counter(after.text.split("\n"))
        gone = Counter({line: count for line, count in gone.items() if line.strip()})
        cut += gone.total()
        right += sum(count for line, count in gone.items() if line in text.BOILERPLATE or line.startswith("Page "))
    return Score("clean: boilerplate lines", planted, cut, right)


# --- dedup


def edited(made: str, rate: float, rng: random.Random) -> str:
    """Each word (character, where there are no spaces) replaced by another of the text at this rate."""
    found = words(made)
    every = [made[a:b] for a, b in zip(found.starts, found.ends, strict=True)]
    parts, at = [], 0
    for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True):
        parts += [made[at:a], rng.choice(every) if rng.random() < rate else made[a:b]]
        at = b
    return "".join([*parts, made[at:]])


def alike(left: str, right: str) -> float:
    a, b = (set(grams(words(each).hashes, 5).tolist()) for each in (left, right))
    return len(a & b) / len(a | b)


def duplicates(documents: list[Document], rng: random.Random) -> tuple[list[Score], list[str]]:
    """Copies at each edit rate come after what they are copies of; must go: similarity from .8; must stay: below .6."""
    copies, must, unjudged, exact = [], set(), set(), set()
    by_rate: dict[float, list[tuple[str, float]]] = {rate: [] for rate in RATES}
    for i, document in enumerate(documents):
        if i % 2:
            rate = RATES[(i // 2) % len(RATES)]
            made = edited(document.text, rate, rng)
            copy = Document(f"copy {i}", made)
            similarity = alike(document.text, made)
            by_rate[rate].append((copy.id, similarity))
            copies.append(copy)
            if made == document.text:
                exact.add(copy.id)
            elif similarity >= SAME:
                must.add(copy.id)
            elif similarity >= APART:
                unjudged.add(copy.id)
    notes = dropped_by(dedup, documents + shuffled(copies, rng), Deduping())
    same = {name for name, note in notes.items() if note.reason == "exact duplicate"}
    near = set(notes) - same
    lines = ["edit rate  copies  similarity  dropped"]
    for rate, rows in by_rate.items():
        mean = sum(value for _, value in rows) / max(len(rows), 1)
        lines.append(f"{rate:9.0%}{len(rows):8}{mean:12.2f}{sum(name in notes for name, _ in rows):9}")
    return [scored("dedup: exact", exact, same), scored("dedup: near", must, near, unjudged)], lines


def leaks(documents: list[Document], rng: random.Random, folder: Path) -> list[Score]:
    """Sentences of a test set inside documents, some in capitals or with other spaces; and documents of another split."""
    pool = random.Random(77)
    questions = [text.question(lang, pool) for lang in ("en", "zh") * 60]
    other = folder / "other"
    write_text(folder / "questions.csv", "question\n" + "\n".join(f'"{q}"' for q in questions))
    given, leaked, shared = list[Document](), set[str](), set[str]()
    for i, document in enumerate(documents):
        made = document.text
        if i % 4 == 1:
            question = rng.choice(questions)
            question = rng.choice((question, question.upper(), "  ".join(question.split(" "))))
            made = made.replace("\n\n", f"\n\n{question} ", 1) if "\n\n" in made else f"{made} {question}"
            leaked.add(document.id)
        if i % 4 == 2:
            near = edited(made, 0.01, rng)
            if alike(near, made) >= SAME:
                write_text(other / f"{i}.txt", near)
                shared.add(document.id)
        given.append(Document(document.id, made))
    settings = Deduping(evaluation=(folder / "questions.csv",), held_out=(other,))
    notes = dropped_by(dedup, given, settings)
    hit = {name for name, note in notes.items() if note.reason == "in a test set"}
    return [scored("dedup: in a test set", leaked, hit), scored("dedup: in another split", shared, set(notes) - hit)]


# --- filter


def languages(documents: list[Document], rng: random.Random) -> list[Score]:
    scores = []
    for name, length in (("documents", 12), ("short, of two sentences", 2)):
        wrong = [Document(f"{code} {i}", text.foreign(code, rng, length)) for i in range(20) for code in text.FOREIGN]
        right = documents if length == 12 else [Document(d.id, text.sentence(d.id[-2:], rng) * 2) for d in documents]
        settings = Filtering(languages=("en", "zh"), shortest=1, rules=False)
        notes = dropped_by(filter_, right + wrong, settings)
        scores.append(scored(f"filter: language, {name}", {d.id for d in wrong}, set(notes)))
    return scores


def gibberish(kind: str, rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    if kind == "letters":
        return " ".join("".join(rng.choices(letters, k=rng.randrange(3, 9))) for _ in range(120))
    if kind == "characters":
        return "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(200))
    if kind == "anagrams":
        return " ".join("".join(rng.sample(w, len(w))) for w in text.document("en", rng).split())
    if kind == "symbols":
        return " ".join("".join(rng.choices(letters[:8] + "#$%&*{}[]/\\", k=6)) for _ in range(120))
    if kind == "figures":
        return "\n".join(" ".join(f"{rng.randrange(10**5)}" for _ in range(8)) for _ in range(20)) + " the sum of that"
    if kind == "repeated lines":
        return "\n".join([text.sentence("en", rng), text.sentence("zh", rng)] * 12)
    if kind == "repeated phrase":
        return text.sentence("zh", rng) + "真的非常好看" * 40
    return "".join(chr(0xC0 + byte % 64) for byte in text.document("zh", rng).encode())  # "mojibake"


KINDS = ("letters", "characters", "anagrams", "symbols", "figures", "repeated lines", "repeated phrase", "mojibake")


def nonsense(documents: list[Document], rng: random.Random) -> tuple[Score, list[str]]:
    bad = [Document(f"{kind} {i}", gibberish(kind, rng)) for i in range(20) for kind in KINDS]
    notes = dropped_by(filter_, documents + bad, Filtering(languages=("en", "zh")))
    told = [f"{kind}: {sum(name.startswith(kind) for name in notes)} of 20" for kind in KINDS]
    return scored("filter: gibberish (rules, language)", {d.id for d in bad}, set(notes)), told


def classified(phrases: str, name: str, documents: list[Document], rng: random.Random, folder: Path) -> Score:
    """Trained on 40 documents of each kind, made of four fifths of the phrases; judged on others, made of all."""
    seen = "|".join(part for i, part in enumerate(phrases.split("|")) if i % 5)
    good, bad = folder / f"{name} good", folder / f"{name} bad"
    for i in range(40):
        prose = paragraphs()[i] if i % 4 == 0 else text.document(("en", "zh")[i % 2], rng, 4)
        write_text(good / f"{i}.txt", prose)
        write_text(bad / f"{i}.txt", text.joined(seen, rng, 8))
    given = [Document(f"bad {i}", text.joined(phrases, rng, 8)) for i in range(100)]
    settings = Filtering(shortest=1, rules=False, good=good, bad=bad)
    return scored(
        f"filter: classifier, {name}", {d.id for d in given}, set(dropped_by(filter_, documents + given, settings))
    )


def toxicity(documents: list[Document], rng: random.Random) -> Score:
    """A line is put into every second document: an insult, or what only looks like one."""
    planted, given = set(), []
    for i, document in enumerate(documents):
        lines = document.text.split("\n")
        if i % 2:
            pool = f"{text.TOXIC}|{text.RUDE}" if i % 4 == 1 else text.MILD
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(pool.split("|")))
            planted |= {document.id} if i % 4 == 1 else set()
        given.append(Document(document.id, "\n".join(lines)))
    notes = dropped_by(filter_, given, Filtering(shortest=1, rules=False, toxic=1))
    return scored("filter: a toxic line", planted, set(notes))


# --- scrub


def scrubbing(count: int, rng: random.Random) -> tuple[list[Score], list[str]]:
    """A span is found if all of it lies in found spans of its kind; a find is right if it touches a span of its kind."""
    planted, found, right, precise, left, size = (Counter[str]() for _ in range(6))
    disguised, revealed = Counter[str](), Counter[str]()
    for i in range(count):
        kinds = rng.sample(list(personal_text.MAKERS), 2)
        made, spans = text.sentence(("en", "zh")[i % 2], rng), []
        for kind in kinds:
            framed, shown, hidden = personal_text.planted(kind, rng)
            at = len(made) + 1 + framed.index(shown)
            made = f"{made}\n{framed} {rng.choice(personal_text.TRAPS)(rng)}"
            spans.append((kind, at, at + len(shown), hidden))
        hits = personal.find(made, personal.KINDS)
        for hit in hits:
            found[hit.kind] += 1
            precise[hit.kind] += any(k == hit.kind and hit.start < b and a < hit.end for k, a, b, _ in spans)
        for kind, start, end, hidden in spans:
            covered = {p for hit in hits for p in range(hit.start, hit.end)}
            own = {p for hit in hits if hit.kind == kind for p in range(hit.start, hit.end)}
            letters = {p for p in range(start, end) if made[p].isalnum()}
            planted[kind] += 1
            right[kind] += letters <= own
            disguised[kind] += hidden
            revealed[kind] += hidden and letters <= own
            left[kind] += len(letters - covered)
            size[kind] += len(letters)
    lines = [
        f"{'kind':10}{'planted':>8}{'found':>8}{'precision':>11}{'recall':>8}{'disguised':>11}{'recall':>8}{'left':>8}"
    ]
    for kind in personal_text.MAKERS:
        numbers = f"{planted[kind]:8}{found[kind]:8}{precise[kind] / max(found[kind], 1):11.3f}{right[kind] / planted[kind]:8.3f}"
        hard = f"{disguised[kind]:11}{revealed[kind] / max(disguised[kind], 1):8.3f}"
        lines.append(f"{kind:10}{numbers}{hard}{left[kind] / size[kind]:8.2%}")
    lines.append(f"characters left of all: {left.total() / size.total():.2%}")
    return [Score(f"scrub: {kind}", planted[kind], found[kind], right[kind]) for kind in personal_text.MAKERS], lines


def measured(count: int = 600, seed: int = 0) -> tuple[list[Score], list[str]]:
    rng, documents, lines = random.Random(seed), base(count, seed), list[str]()
    scores = [*cleaning(documents, rng), boilerplate(documents, rng)]
    found, told = duplicates(documents, rng)
    scores, lines = scores + found, [*lines, "", *told]
    with tempfile.TemporaryDirectory() as folder:
        scores += leaks(documents, rng, Path(folder))
        scores += languages(documents, rng)
        score, told = nonsense(documents, rng)
        scores, lines = (
            [*scores, toxicity(documents, rng), score],
            [*lines, "", "gibberish dropped: " + "; ".join(told)],
        )
        scores += [
            classified(p, n, documents, rng, Path(folder)) for n, p in (("spam", text.SPAM), ("rude", text.RUDE))
        ]
    found, told = scrubbing(4 * count, rng)
    return scores + found, [*lines, "", *told]


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    scores, lines = measured(*given)
    print(f"{'filter':34}{'planted':>8}{'found':>8}{'right':>8}{'precision':>11}{'recall':>8}")
    print(*(score for score in scores if not score.filter.startswith("scrub")), sep="\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
