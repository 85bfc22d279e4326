"""The settings of each step from raw documents to a corpus. Knows no numpy, so that `--help` is fast."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qualm.errors import UsageError
from qualm.text.script import Script

Kind = Literal["URL", "EMAIL", "IBAN", "ID", "CARD", "IP", "PASSPORT", "ADDRESS", "PHONE"]
EVERY_KIND: tuple[Kind, ...] = ("URL", "EMAIL", "IBAN", "ID", "CARD", "IP", "PASSPORT", "ADDRESS", "PHONE")


@dataclass(frozen=True)
class Collecting:
    """How files become documents, and what no file may exceed.

    Attributes:
        strict: Stop at the first file or record that cannot be used; else it is named and left out.
        repair: Tell each file's encoding and mend text that was decoded wrongly; else UTF-8 alone.
        field: The column of a table that holds the text.
        most_bad: The share of records that may be unusable before the command fails.
        largest: The most bytes of a line, and of a file that must be read whole.
        ratio: How many times its size a compressed file may unpack to.
        depth: How deep archives may lie in archives.
        pages: The most pages of a PDF.
        seconds: How long a document of HTML, PDF, WARC and the like may take.
        memory: The most bytes of memory that its reader may use.
    """

    strict: bool = False
    repair: bool = True
    field: str = "text"
    most_bad: float = 0.01
    largest: int = 64 * 2**20
    ratio: int = 100
    depth: int = 3
    pages: int = 5000
    seconds: float = 60.0
    memory: int = 2 * 2**30


@dataclass(frozen=True)
class Cleaning:
    """How a text is made plain.

    Attributes:
        html: Take out comments, scripts, styles and tags, and resolve entities.
        width: Write letters and digits in half width, katakana in full, punctuation as its neighbours are.
        script: Write Chinese in simplified or traditional characters (extra zh); empty as it is.
        spaces: Squeeze white space inside and between lines; indents stay.
        boilerplate: Take out lines that stand in at least so many documents; 0 keeps them all.
        share: And in at least this share of the documents.
    """

    html: bool = True
    width: bool = True
    script: Script = ""
    spaces: bool = True
    boilerplate: int = 10
    share: float = 0.001


@dataclass(frozen=True)
class Deduping:
    """What counts as the same.

    Attributes:
        near: Drop a document as similar as this (Jaccard, of 5-grams) to one that was kept; 0 for exact copies only.
            The bands find most of what is above 0.8 and little below 0.6.
        paragraphs: Take out paragraphs of at least so many characters that stood before; 0 keeps them.
        lines: The same for lines.
        held_out: Files or folders whose documents, and what is near them, are dropped: another split.
        evaluation: Files of test sets: a document that shares an n-gram with any text in them is dropped.
        ngram: Words (characters, in scripts without spaces) that must be shared. Shorter texts must stand in a document
            whole; shorter than 8 they are not looked for.
    """

    near: float = 0.7
    paragraphs: int = 0
    lines: int = 0
    held_out: tuple[Path, ...] = ()
    evaluation: tuple[Path, ...] = ()
    ngram: int = 13

    def __post_init__(self) -> None:
        if not 0 <= self.near <= 1:
            raise UsageError(f"must be from 0 to 1, not {self.near}", where="near")
        if self.ngram < 8:
            raise UsageError(f"must be at least 8, not {self.ngram}", where="ngram", then="shorter runs are everywhere")


@dataclass(frozen=True)
class Filtering:
    """Which documents are kept.

    Attributes:
        languages: Only these, by ISO 639 codes such as en,zh; none for all.
        sure: The least certainty of the language, from 0 to 1.
        shortest: The fewest words (characters, in scripts without spaces).
        longest: The most.
        rules: Drop what breaks a rule on symbols, digits, lines and repetition (Gopher's).
        toxic: Drop what has at least so many lines that insult, threaten or are obscene; 0 keeps them.
        good: Documents that are wanted; with `bad`, a classifier is trained on both.
        bad: Documents that are not.
        threshold: The least probability of being good.
        licences: Only documents whose licence is one of these; none for all.
        licence_field: The key of a record that holds its licence.
    """

    languages: tuple[str, ...] = ()
    sure: float = 0.5
    shortest: int = 50
    longest: int = 100_000
    rules: bool = True
    toxic: int = 0
    good: Path | None = None
    bad: Path | None = None
    threshold: float = 0.5
    licences: tuple[str, ...] = ()
    licence_field: str = "license"

    def __post_init__(self) -> None:
        if (self.good is None) != (self.bad is None):
            raise UsageError("good and bad examples are needed, or neither", then="give --good FILE --bad FILE")


@dataclass(frozen=True)
class Balancing:
    """How many times a document stands in the corpus.

    Attributes:
        weights: By language, such as zh=2,en=0.5; what is not named stands once.
        sources: By how the place begins that a document was first read from, such as wiki/=0.3.
        pick: A seed: which documents stay, where not all do.
    """

    weights: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    pick: int = 0

    def __post_init__(self) -> None:
        weights_of(self.weights)
        weights_of(self.sources)


def weights_of(told: tuple[str, ...]) -> dict[str, float]:
    """name -> weight, of "name=weight". Raises UsageError for what is not so, and for a negative weight."""
    found: dict[str, float] = {}
    for each in (part.strip() for line in told for part in line.split(",") if part.strip()):
        name, _, weight = each.rpartition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = -1.0
        if not name or not 0 <= found[name] <= 1000:
            raise UsageError(
                f"must be NAME=WEIGHT, from 0 to 1000, not {each!r}", where="weights", then="write zh=2,en=0.5"
            )
    return found


@dataclass(frozen=True)
class Augmenting:
    """Which variants of a document stand behind it.

    Attributes:
        counterfactual: The other gender: pairs such as he and she, and given names, exchanged both ways.
        typos: The share of words with a typing error.
        dropout: The share of words that are left out.
        synonyms: A file of words that mean the same, between tabs, a line a group.
        exchanged: The share of words that have one, exchanged for a synonym.
        draw: A seed: what is drawn by lot.
    """

    counterfactual: bool = False
    typos: float = 0.0
    dropout: float = 0.0
    synonyms: Path | None = None
    exchanged: float = 0.2
    draw: int = 0

    def __post_init__(self) -> None:
        for name in ("typos", "dropout", "exchanged"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"must be from 0 to below 1, not {getattr(self, name)}", where=name)


@dataclass(frozen=True)
class Describing:
    """What a description reads.

    Attributes:
        sample: Documents, drawn by the hash of their content, from which all but sizes and exact copies are read.
        tests: Files of test sets: how many documents share thirteen words with one.
        seed: Of the clusters.
    """

    sample: int = 2000
    tests: tuple[Path, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample < 1:
            raise UsageError(f"must be at least 1, not {self.sample}", where="sample")


@dataclass(frozen=True)
class Keeping:
    """A function of a document that says True to keep it, or False, or why not. From Python only."""

    keep: Callable[[Any], bool | str]


@dataclass(frozen=True)
class Scrubbing:
    """What personal data is replaced.

    Attributes:
        kinds: These kinds, each by placeholders such as <EMAIL_1>, the same for the same value in a document.
        names: Names of persons too, by a gazetteer. Novels and news lose their heroes.
        presidio: A model of spaCy's, by name or folder, with which Presidio looks for English besides (extra presidio).
    """

    kinds: tuple[Kind, ...] = EVERY_KIND
    names: bool = False
    presidio: str = ""


@dataclass(frozen=True)
class Splitting:
    """What is set aside to be measured on.

    Attributes:
        aside: The share of distinct documents that is set aside, by the hash of what they say.
        alike: Documents as similar as this (Jaccard, of 5-grams) fall on one side; 0 for equal ones only.
    """

    aside: float = 0.05
    alike: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.aside < 1:
            raise UsageError(f"must be above 0 and below 1, not {self.aside}", where="aside")
        if not 0 <= self.alike <= 1:
            raise UsageError(f"must be from 0 to 1, not {self.alike}", where="alike")


@dataclass(frozen=True)
class Packing:
    """How documents become token ids.

    Attributes:
        tokenizer: A folder with a tokenizer; none to learn one from the documents.
        vocab: Tokens of the one that is learnt.
        sample: Bytes of text that it is learnt from, the first ones.
    """

    tokenizer: Path | None = None
    vocab: int = 8192
    sample: int = 200_000_000

    def __post_init__(self) -> None:
        if self.vocab < 300:
            raise UsageError(f"must be at least 300, not {self.vocab}", where="vocab", then="256 bytes come first")


Settings = Cleaning | Deduping | Filtering | Keeping | Scrubbing | Balancing | Augmenting | Splitting | Packing


@dataclass(frozen=True)
class Running:
    """Where a corpus is made; the outcome does not hang on it.

    Attributes:
        workers: How many processes work on it; 0 for one a core.
        on: Work on Ray: ray for a cluster on this machine alone, ray://HOST:PORT for another.
    """

    workers: int = 1
    on: str = ""
