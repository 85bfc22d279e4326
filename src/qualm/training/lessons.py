"""What labelled rows teach a model: which columns they have, the head and the loss they need, the examples they make.

Columns are those that data sets usually have: text + label; tokens + tags; question + context + answers; prompt +
completion (or source + target); messages.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from qualm.corpus.records import Record
from qualm.errors import InputError, QualmError
from qualm.models.base import Decoder, Encoder, EncoderDecoder, Model
from qualm.tokens.pairs import join
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import IGNORE, Batch, ExampleRows
from qualm.training.heads import with_head
from qualm.training.losses import Loss, Seq2Seq, causal, head_logits, label_nats, labelled, labels_right, spanned
from qualm.training.reading import each, mean_nats
from qualm.training.recipe import Lessons

Example = Mapping[str, Any]
SMOOTHING = 0.1  # as Vaswani et al. 2017 (arXiv 1706.03762) train translators
SECOND = ("text2", "sentence2", "hypothesis")  # what the column of a second text may be called


class Lesson(ABC):
    """Made of the training rows, whose labels it learns. `length` is the most tokens of an example.

    `cut` counts the texts that were longer, whose ends are left out.
    """

    of: ClassVar[tuple[type[Model], ...]]  # the kinds of model that can be taught so

    def __init__(self, tokens: Tokens, length: int, records: Sequence[Record], wanted: Lessons = Lessons("")):
        self.tokens, self.length, self.wanted, self.cut = tokens, length, wanted, 0

    def prepare(self, model: Model, seed: int) -> Model:
        """The model that learns: itself, or one with the head that is needed."""
        return model

    @abstractmethod
    def example(self, record: Record) -> Example:
        """Raises InputError naming row and field."""

    def examples(self, records: Sequence[Record], model: Model, folder: Path) -> list[Example]:
        """Of all records; what takes long to make may be kept in `folder`."""
        return [self._told(record) for record in records]

    def _told(self, record: Record) -> Example:
        """What is wrong with a row in the eyes of another, a template say, is told with the row."""
        try:
            return self.example(record)
        except QualmError as error:
            if error.where == record.where:
                raise
            raise InputError(error.what, where=record.where, then=error.then or f"see {error.where}") from error

    @abstractmethod
    def loss(self, model: Model) -> Loss: ...

    def begin(self, model: Model, rows: ExampleRows) -> None:  # noqa: B027
        """Called once with the held-out rows, before anything is learnt."""

    def read(self, model: Model, rows: ExampleRows, loss: Loss) -> Mapping[str, float]:
        """What validation reads: `loss` in nats a target, lower is better, and what else there is to know."""
        return {"loss": mean_nats(model, rows, loss)}

    def shortened(self, ids: Sequence[int], most: int) -> list[int]:
        self.cut += len(ids) > most
        return list(ids[:most])

    def framed(self, record: Record) -> dict[str, list[int]]:
        """`ids` of one text or two between the tokenizer's marks, with `segments` if there are two."""
        first, second = self.tokens.encode(record.text("text")), next((n for n in SECOND if n in record), "")
        start, end = self.tokens.start, self.tokens.end
        if not second:
            return {"ids": [*start, *self.shortened(first, self.length - len(start) - len(end)), *end]}
        room = self.length - len(join(self.tokens.tokenizer, (), ()).ids)
        kept = self.shortened(first, room // 2)
        rest = self.shortened(self.tokens.encode(record.text(second)), room - len(kept))
        both = join(self.tokens.tokenizer, kept, rest)
        return {"ids": both.ids, "segments": both.segments}


class Labels(Lesson):
    """Of a fixed set: one a text, several, or one a word."""

    of = (Encoder,)

    def loss(self, model: Model) -> Loss:
        return labelled

    def read(self, model: Model, rows: ExampleRows, loss: Loss) -> Mapping[str, float]:
        """`accuracy` besides: the share of targets told right, where of several labels a text each is a target."""

        def some(model: Any, batch: Batch) -> tuple[float, int, int]:
            logits = head_logits(model, batch)
            nats, count = label_nats(logits, batch["labels"])
            return float(nats), count, labels_right(logits, batch["labels"])

        nats, counts, right = zip(*each(model, rows, some), strict=True)
        count = max(1, sum(counts))
        return {"loss": math.fsum(nats) / count, "accuracy": sum(right) / count}


class Classify(Labels):
    """One label a text (or pair of texts), or with lists of labels several."""

    def __init__(self, tokens: Tokens, length: int, records: Sequence[Record], wanted: Lessons = Lessons("")):
        super().__init__(tokens, length, records, wanted)
        self.several = any(isinstance(record.get("label"), list) for record in records)
        self.labels = sorted({label for record in records for label in self._labels(record)}, key=_natural)
        if len(self.labels) < 2:
            raise InputError(f"all rows have the label {self.labels[0]!r}", where=records[0].where, then="add others")

    def prepare(self, model: Model, seed: int) -> Model:
        return with_head(model, "sequence", self.labels, seed, self.several, self.wanted.pooling)

    def example(self, record: Record) -> Example:
        places = [_place(label, self.labels, record) for label in self._labels(record)]
        several = [float(i in places) for i in range(len(self.labels))]
        return {**self.framed(record), "labels": several if self.several else places[0]}

    def _labels(self, record: Record) -> list[str]:
        def kind(value: Any) -> list[str] | None:
            found = value if self.several and isinstance(value, list) else [value]
            good = all(isinstance(each, str | int) and not isinstance(each, bool) for each in found)
            return [str(each) for each in found] if good else None

        return record.take("label", kind, "a label" + (", nor a list of labels" if self.several else ""))


class Tag(Labels):
    """One tag a word: of `tokens`, words in order, which are joined with spaces, and `tags`."""

    def __init__(self, tokens: Tokens, length: int, records: Sequence[Record], wanted: Lessons = Lessons("")):
        super().__init__(tokens, length, records, wanted)
        self.labels = sorted({tag for record in records for tag in record.texts("tags")}, key=_natural)

    def prepare(self, model: Model, seed: int) -> Model:
        return with_head(model, "token", self.labels, seed)

    def example(self, record: Record) -> Example:
        words, tags = record.texts("tokens"), record.texts("tags")
        if len(words) != len(tags):
            raise InputError(f"{len(words)} tokens and {len(tags)} tags", where=record.where, then="mend the row")
        starts, at = {}, 0
        for word, tag in zip(words, tags, strict=True):
            starts[at] = _place(tag, self.labels, record)
            at += len(word) + 1
        encoded, text = self.tokens.offsets(" ".join(words)), " ".join(words)
        labels, seen = [], -1
        for begin, end in encoded.offsets:
            first = begin + len(text[begin:end]) - len(text[begin:end].lstrip())  # a token may begin with the space
            word = max((start for start in starts if start <= first), default=0)
            labels.append(starts[word] if word != seen else IGNORE)
            seen = word
        start, end = self.tokens.start, self.tokens.end
        most = self.length - len(start) - len(end)
        ids = self.shortened(encoded.ids, most)
        return {
            "ids": [*start, *ids, *end],
            "labels": [*[IGNORE] * len(start), *labels[:most], *[IGNORE] * len(end)],
        }


class Question(Lesson):
    """Where in `context` the answer to `question` stands: `answers` has `text` and `answer_start`, lists whose first
    counts; empty lists mean that the context does not tell, which is answered with the first token.
    """

    of = (Encoder,)

    def prepare(self, model: Model, seed: int) -> Model:
        return with_head(model, "question", ("start", "end"), seed)

    def example(self, record: Record) -> Example:
        asked, context = self.tokens.encode(record.text("question")), record.text("context")
        encoded = self.tokens.offsets(context)
        found = record.take("answers", _answer, '{"text": [...], "answer_start": [...]}')
        span = _tokens_of(found, context, encoded.offsets, record) if found[0] else None
        room = self.length - len(join(self.tokens.tokenizer, asked, ()).ids)
        if room < 1:
            raise InputError(f"the question leaves no room in {self.length} tokens", where=record.where)
        first = 0
        if len(encoded.ids) > room:  # the window with the answer in its middle
            self.cut += 1
            middle = (span[0] + span[1]) // 2 if span else 0
            first = min(max(0, middle - room // 2), len(encoded.ids) - room)
        both = join(self.tokens.tokenizer, asked, encoded.ids[first : first + room])
        inside = span is not None and first <= span[0] and span[1] < first + room
        start, stop = (span[0] - first + both.at, span[1] - first + both.at) if span and inside else (0, 0)
        return {"ids": both.ids, "segments": both.segments, "starts": start, "stops": stop}

    def loss(self, model: Model) -> Loss:
        return spanned


class Pairs(Lesson):
    """A text and what is to be written for it: `prompt` and `completion`, or `source` and `target`."""

    of = (EncoderDecoder, Decoder)

    def __init__(self, tokens: Tokens, length: int, records: Sequence[Record], wanted: Lessons = Lessons("")):
        super().__init__(tokens, length, records, wanted)
        if tokens.eos_id is None:
            raise InputError("the tokenizer has no end token", where=tokens.where, then="name one as eos_token")
        self.under = False

    def prepare(self, model: Model, seed: int) -> Model:
        self.under = isinstance(model, EncoderDecoder)
        return model

    def example(self, record: Record) -> Example:
        prompt, answer = record.text("prompt", "source"), record.text("completion", "target")
        end = [] if self.tokens.eos_id is None else [self.tokens.eos_id]
        if self.under:
            source = self.shortened(self.tokens.encode_source(prompt), self.length)
            return {"ids": source, "labels": self.shortened([*self.tokens.encode_target(answer), *end], self.length)}
        ids, first = self.tokens.encode_pair(prompt, answer)
        ids = self.shortened([*ids, *end], self.length + 1)
        return next_of(ids, [i >= first for i in range(len(ids))])

    def loss(self, model: Model) -> Loss:
        return Seq2Seq(SMOOTHING) if self.under else causal


class Chat(Lesson):
    """Conversations: `messages`. Only what the assistant says is learnt."""

    of = (Decoder,)

    def example(self, record: Record) -> Example:
        messages = record.take("messages", messages_of, "a list of messages with a role and a content")
        ids, said = self.tokens.encode_turns(messages)
        if not any(said):
            raise InputError("the assistant says nothing", where=record.where, then="add a message of its, or drop it")
        return next_of(self.shortened(ids, self.length + 1), said)

    def loss(self, model: Model) -> Loss:
        return causal


def next_of(ids: Sequence[int], learnt: Sequence[bool]) -> Example:
    """Ids, and as labels the next ones, where they are to be learnt."""
    labels = [i if learn else IGNORE for i, learn in zip(ids[1:], learnt[1 : len(ids)], strict=True)]
    return {"ids": list(ids[:-1]), "labels": labels}


def _natural(label: str) -> tuple[bool, int, str]:
    """Numbers by size, before words."""
    return not label.isdigit(), int(label) if label.isdigit() else 0, label


def _place(label: str, labels: Sequence[str], record: Record) -> int:
    if label not in labels:
        raise InputError(
            f"label {label!r} is not among those learnt", where=record.where, then=f"say {', '.join(labels[:20])}"
        )
    return labels.index(label)


def _answer(value: Any) -> tuple[str, int] | None:
    """("", 0) for none."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), list):
        return None
    texts, starts = value["text"], value.get("answer_start")
    if not isinstance(starts, list) or len(starts) != len(texts):
        return None
    if not texts:
        return "", 0
    good = isinstance(texts[0], str) and isinstance(starts[0], int) and texts[0]
    return (texts[0], starts[0]) if good else None


def _tokens_of(
    answer: tuple[str, int], context: str, offsets: Sequence[tuple[int, int]], record: Record
) -> tuple[int, int]:
    """The first and last token of an answer. Raises InputError if it does not stand where it is said to."""
    text, begin = answer
    if context[begin : begin + len(text)] != text:
        raise InputError(f"the context has no {text[:40]!r} at character {begin}", where=record.where, then="mend it")
    over = [i for i, (a, b) in enumerate(offsets) if a < begin + len(text) and b > begin]
    return over[0], over[-1]


def messages_of(value: Any) -> list[dict[str, str]] | None:
    good = (
        isinstance(value, list)
        and value
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    )
    return value if good else None
