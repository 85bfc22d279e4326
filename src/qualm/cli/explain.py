"""`qualm explain`: which words of a question an answer rests on."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.models import load

if TYPE_CHECKING:
    from qualm.inside.occlusion import Explanation

MOST = 10  # words in the table


def explain(
    model: str,
    question: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    answer: Annotated[str, Parameter(name=["--answer", "-a"], allow_leading_hyphen=True)] = "",
    plain: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    common: Common = Common(),
) -> None:
    """Leave out each word of a question in turn, and tell how much likelihood the answer loses.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        question: What is asked, in 3 to 400 words.
        answer: The answer to explain; by default the model's own.
        plain: The question is a text to continue, not a message to answer.
        seed: Of the words left out at random, which the hottest are set beside.
    """
    lm = load(model, common)
    prompt = question if plain else [{"role": "user", "content": question}]
    found = rooms.occlusion.explain(lm, prompt, answer, seed)
    tested = found.faithfulness
    words = [{**asdict(word), "word": found.text[word.start : word.end]} for word in found.words]
    told = {"text": found.text, "answer": found.answer, "words": words}
    document = {
        "schema": "qualm.explain/1",
        "model": lm.name,
        **told,
        "faithfulness": {**asdict(tested), "shown": tested.shown},
    }
    common.result(document, table(found))
    common.remark(
        f"answer: {found.answer.strip()}\n{'faithful' if tested.shown else 'not shown to be faithful'}: without its "
        f"{tested.count} hottest words the answer loses {tested.hottest:.2f} nats, without as many at random "
        f"{tested.mean:.2f} ({tested.low:.2f} to {tested.high:.2f})"
    )


def table(found: "Explanation") -> Table:
    """The hottest words, the hottest first."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("word")
    shown.add_column("nats lost without it", justify="right")
    for word in sorted(found.words, key=lambda word: -word.heat)[:MOST]:
        shown.add_row(Text(found.text[word.start : word.end]), f"{word.heat:.2f}")
    return shown
