"""`qualm tokens`: learn a tokenizer, measure some side by side, or give a model new words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load
from qualm.errors import UsageError

if TYPE_CHECKING:
    from qualm.tokens.tokenizer import Tokens

TRAIN, EXTEND = Group("train", sort_key=3), Group("extend", sort_key=4)
FILES = ("tokenizer.json", "tokenizer_config.json", "source.spm")


@Parameter(name="*", group=TRAIN)
@dataclass(frozen=True, kw_only=True)
class Learning:
    """What to learn.

    Attributes:
        kind: bpe and unigram spell in bytes what they have no token for; wordpiece, word and character say [UNK].
        vocab: Tokens, special ones among them.
        family: Of the model that it is for, which decides the special tokens: see qualm list models.
    """

    kind: Literal["bpe", "unigram", "wordpiece", "word", "character"] = "bpe"
    vocab: int = 8000
    family: str = "llama"


@Parameter(name="*", group=EXTEND)
@dataclass(frozen=True, kw_only=True)
class Adding:
    """What to add.

    Attributes:
        add: A file with a word a line.
        from_text: A file or folder of text whose words are to be found: those that would save most tokens.
        count: How many of them.
    """

    add: Path | None = None
    from_text: Path | None = None
    count: int = 100


def tokens(
    action: Literal["train", "measure", "extend"],
    /,
    *sources: str,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    text: tuple[Path, ...] = (),
    learning: Learning = Learning(),
    adding: Adding = Adding(),
    common: Common = Common(),
) -> None:
    """Train a tokenizer, measure tokenizers side by side, or extend a model's vocabulary.

    Args:
        action: train, measure or extend.
        sources: To train, a file or folder of text; to measure, any number of models or tokenizer folders; to extend,
            a model.
        output: The folder that becomes the tokenizer, or the extended model.
        text: Files or folders to measure on, in place of a sample of English and Chinese; of an extended model, bits
            per byte before and after on each.
    """
    check(action, sources, output, text, {TRAIN: learning, EXTEND: adding})
    if action == "measure":
        document, shown = rooms.spelling.measured([(source, tokens_of(source, common)) for source in sources], text)
    elif output and action == "train":
        document, shown = rooms.spelling.trained(sources[0], output, **vars(learning))
    else:
        assert output
        lm = load(sources[0], common)
        document, shown = rooms.spelling.extended(lm, output, text=text, **vars(adding))
        common.remark("the new tokens know no more than their pieces: train the model on before it is used")
    common.result({"schema": f"qualm.tokens.{action}/1", **document}, shown)


def check(
    action: str,
    sources: Sequence[str],
    output: Path | None,
    text: Sequence[Path],
    settings: Mapping[Group, Learning | Adding],
) -> None:
    """Raises UsageError if something is missing, or given that is of no use."""
    if not sources:
        raise UsageError("names nothing to work on", where=action, then="see: qualm tokens --help")
    if action != "measure" and len(sources) > 1:
        raise UsageError(
            f"takes one source, not {len(sources)}", where=action, then="name a folder of text, or a model"
        )
    if (output is None) != (action == "measure"):
        which = "needs a folder to write to" if output is None else "writes nothing"
        raise UsageError(which, where=action, then="say -o FOLDER" if output is None else "leave -o out")
    if action == "train" and text:
        raise UsageError("--text is to measure on", where=action, then="name the text to learn from after train")
    if output and output.is_dir() and any(output.iterdir()):
        raise UsageError("is not empty", where=str(output), then="name another folder")
    for group, given in settings.items():
        changed = [f.name for f in fields(given) if getattr(given, f.name) != f.default]
        if changed and group.name != action:
            raise UsageError(f"--{changed[0].replace('_', '-')} is a setting of {group.name}", where=action)
    adding = settings[EXTEND]
    if action == "extend" and isinstance(adding, Adding) and (adding.add is None) == (adding.from_text is None):
        raise UsageError("needs words", where=action, then="say either --add WORDS or --from-text TEXT")
    if isinstance(adding, Adding) and adding.count < 1:
        raise UsageError(f"must be above 0, not {adding.count}", where="count")


def tokens_of(source: str, common: Common) -> "Tokens":
    """The tokenizer of a folder that holds one, or of any model whose weights are here."""
    if any((Path(source) / name).is_file() for name in FILES):
        return rooms.tokenizer.Tokens.load(source)
    lm = load(source, common)
    return rooms.export.with_weights(lm).tokens
