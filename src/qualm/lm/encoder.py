"""Encoders as language models: they read a text from both sides, and tell what their head was taught.

They do not write. One with a masked head scores a text by its pseudo-likelihood (Salazar et al. 2020, arXiv
1910.14659): each token in turn is masked, and its probability is read given all others. Such numbers are no
probabilities of the text, so they are never set against those of a decoder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import groupby
from statistics import mean
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from qualm.errors import QualmError, Unsupported, UsageError
from qualm.lm.base import PSEUDO, Answer, Prompt, Scored, Span
from qualm.lm.decode import padded
from qualm.lm.local import Local
from qualm.lm.scoring import windows
from qualm.models.base import Encoder, Model
from qualm.tokens.pairs import join

BATCH = 1024  # tokens read at once, padding included: larger batches are slower on a processor
LONGEST_ANSWER = 30  # tokens, as BERT's own evaluation has it
CAN: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "masked": frozenset({"score", "fill"}),
    "sequence": frozenset({"classify"}),
    "token": frozenset({"tag"}),
    "question": frozenset({"answer"}),
}  # by head; all embed
SEVERAL = "multi_label_classification"  # config.problem_type: more than one label may hold
BEGINS, GOES_ON, OUTSIDE = {"B", "S", "U"}, {"I", "E", "L"}, "O"  # of the schemes IOB, IOBES and BILOU


class EncoderLM(Local):
    """An encoder and its tokenizer. What it `can` follows from its head."""

    of: ClassVar[type[Model]] = Encoder
    scoring: ClassVar[str] = PSEUDO

    @classmethod
    def at_best(cls, family: type[Model]) -> frozenset[str]:
        config = family.config_class
        heads = CAN if "head" in {f.name for f in fields(config)} else {config.head}  # type: ignore[attr-defined]
        return frozenset({"embed", "weights"}).union(*(CAN[head] for head in heads))

    @cached_property
    def can(self) -> frozenset[str]:  # type: ignore[override]
        found = CAN[self.model.config.head] | {"embed", "weights"}
        return found if self.tokens.mask else found - CAN["masked"]

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Pseudo-log-likelihoods: context and continuation are one text, each token of the continuation is masked in
        turn. A text longer than the context is read in windows, each token once with at least half a window before it.
        """
        if "score" not in self.can:
            return super().score(pairs)
        places: list[tuple[int, list[int], int]] = []  # whose it is, a window's ids, and which of them is masked
        for item, (context, continuation) in enumerate(pairs):
            for window in windows(item, *self._one_text(context, continuation), self._room):
                ids = self._framed(window.ids)
                places += [(item, ids, self._before + at) for at in range(window.first, len(window.ids))]
        values = [0.0] * len(places)
        for batch in batches([len(ids) for _, ids, _ in places]):
            for i, value in zip(batch, self._unmask([places[i][1:] for i in batch]), strict=True):
                values[i] = value
        scored: list[list[float]] = [[] for _ in pairs]
        for (item, _, _), value in zip(places, values, strict=True):
            scored[item].append(value)
        return [Scored(tuple(each)) for each in scored]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of the hidden states of all tokens, those of the frame included, divided by its length: what
        sentence-transformers makes of MiniLM. Of a long text, each token is read once, in windows.
        """
        rows: list[tuple[int, list[int], int, int]] = []  # whose it is, ids, and from where to where they count
        for item, text in enumerate(texts):
            parts = list(windows(item, self.tokens.encode(text), 0, self._room))
            for part in parts:
                ids = self._framed(part.ids)
                begin = 0 if part is parts[0] else self._before + part.first
                end = len(ids) if part is parts[-1] else self._before + len(part.ids)
                rows.append((item, ids, begin, end))
        means: dict[int, Tensor] = {}
        for batch in batches([len(ids) for _, ids, _, _ in rows]):
            hidden, _ = self._read([rows[i][1] for i in batch])
            for states, (item, _, begin, end) in zip(hidden, (rows[i] for i in batch), strict=True):
                means[item] = means.get(item, torch.zeros(())) + states[begin:end].float().sum(0).cpu()
        found = [torch.nn.functional.normalize(means[i], dim=0).numpy() for i in range(len(texts))]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    @torch.inference_mode()
    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Raises Unsupported for a text longer than the model can look at: no part of it can stand for the whole."""
        if "classify" not in self.can:
            return super().classify(texts)
        if self.model.config.problem_type == "regression":
            raise Unsupported(f"what {self.name} says of a text is a number on a scale, and no probability of a label")
        rows = [self._fits(self.tokens.encode_source(text), i) for i, text in enumerate(texts)]
        found: dict[int, dict[str, float]] = {}
        for batch in batches([len(ids) for ids in rows]):
            logits = self.model.head(*self._read([rows[i] for i in batch])).float()  # (B, labels)
            several = logits.shape[1] == 1 or self.model.config.problem_type == SEVERAL
            for i, p in zip(batch, logits.sigmoid() if several else logits.softmax(-1), strict=True):
                found[i] = {self._label(k): value for k, value in enumerate(p.tolist())}
        return [found[i] for i in range(len(texts))]

    @torch.inference_mode()
    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        """A word has the label of its first token; B- and I- labels that belong together become one span, with the
        mean of their probabilities. Words labelled O are left out. A long text is read in windows, as in `score`.
        """
        if "tag" not in self.can:
            return super().tag(texts)
        parts = [part for item, text in enumerate(texts) for part in windows(item, *self._ids(text), self._room)]
        best: dict[int, list[tuple[float, int]]] = {}
        for batch in batches([len(part.ids) for part in parts]):
            logits = self.model.head(*self._read([self._framed(parts[i].ids) for i in batch])).float()  # (B, T, labels)
            for i, p in zip(batch, logits.softmax(-1), strict=True):
                top = p[self._before + parts[i].first : self._before + len(parts[i].ids)].max(-1)
                best[i] = list(zip(top.values.tolist(), top.indices.tolist(), strict=True))
        tokens: list[list[tuple[float, int]]] = [[] for _ in texts]
        for i, part in enumerate(parts):
            tokens[part.item] += best[i]
        return [merged(self._words(text, found)) for text, found in zip(texts, tokens, strict=True)]

    @torch.inference_mode()
    def answer(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """The likeliest span of at most LONGEST_ANSWER tokens; that there is none is the span of the first token alone
        (Devlin et al. 2018, arXiv 1810.04805, section 4.3). A long passage is read in windows, and the answer is that
        of the window where its probability is highest.
        """
        if "answer" not in self.can:
            return super().answer(pairs)
        return [max(self._answers(*pair), key=lambda found: found.p) for pair in pairs]

    @torch.inference_mode()
    def fill(self, texts: Sequence[str], top: int = 5) -> list[list[dict[str, float]]]:
        """Raises UsageError if a text holds no mask marker, Unsupported if it is longer than the model can look at."""
        if "fill" not in self.can:
            return super().fill(texts, top)
        rows = []
        for i, text in enumerate(texts):
            ids = self._fits(self._framed(self.tokens.encode_masked(text)), i)
            if self.tokens.mask_id not in ids:
                raise UsageError(f"text {i} has no {self.tokens.mask}", then="put one where a word is to be filled in")
            rows.append(ids)
        found: dict[int, list[dict[str, float]]] = {}
        for batch in batches([len(ids) for ids in rows]):
            hidden, _ = self._read([rows[i] for i in batch])
            for states, i in zip(hidden, batch, strict=True):
                at = [k for k, token in enumerate(rows[i]) if token == self.tokens.mask_id]
                found[i] = [self._likeliest(p, top) for p in self.model.head(states[None, at])[0].float().softmax(-1)]
        return [found[i] for i in range(len(texts))]

    # -- texts to rows

    @property
    def _before(self) -> int:
        return len(self.tokens.start)

    @property
    def _room(self) -> int:
        """The most tokens of a text that fit into the frame."""
        return self.context - len(self.tokens.start) - len(self.tokens.end)

    def _framed(self, ids: Sequence[int]) -> list[int]:
        return [*self.tokens.start, *ids, *self.tokens.end]

    def _ids(self, text: str) -> tuple[list[int], int]:
        return self.tokens.encode(text), 0

    def _one_text(self, context: Prompt, continuation: str) -> tuple[list[int], int]:
        """Ids without the frame, and where the continuation's begin."""
        ids, first = self.tokens.encode_pair(context, continuation)
        skipped = self._before if tuple(ids[: self._before]) == self.tokens.start else 0
        return ids[skipped:], first - skipped

    def _fits(self, ids: list[int], i: int) -> list[int]:
        if not ids:
            raise Unsupported(f"text {i} holds nothing that {self.name} knows", then="leave it out")
        if len(ids) > self.context:
            what = f"text {i} has {len(ids)} tokens and {self.name} can look at {self.context}"
            raise Unsupported(what, then="shorten it, or cut it into parts")
        return ids

    def _read(self, rows: Sequence[Sequence[int]], segments: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, D) of rows of ids, and their lengths (B,)."""
        device = next(self.model.parameters()).device
        if not all(rows):
            raise Unsupported(f"a text holds nothing that {self.name} knows", then="leave it out")
        ids, lengths = padded(rows, device)
        kinds = None if segments is None else torch.tensor([segments], device=device)
        return self.model.hidden(ids, lengths, kinds), lengths

    # -- logits to answers

    def _unmask(self, places: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """log p of one token of each row given all others."""
        mask, rows = self.tokens.special[self.tokens.mask], list(range(len(places)))
        hidden, _ = self._read([[*ids[:at], mask, *ids[at + 1 :]] for ids, at in places])
        logits = self.model.head(hidden[rows, [at for _, at in places]][:, None])[:, 0].float()  # (B, V)
        wanted = torch.tensor([[ids[at]] for ids, at in places], device=logits.device)
        values = logits.log_softmax(-1).gather(-1, wanted)[:, 0].tolist()
        if any(v != v for v in values):
            raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
        return values

    def _likeliest(self, p: Tensor, top: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for value, token in zip(*(t.tolist() for t in p.topk(min(top, len(p)))), strict=True):
            found.setdefault(self.tokens.decode([token], skip_special=False), value)
        return found

    def _label(self, i: int) -> str:
        return self.model.config.labels[i]

    def _words(self, text: str, tokens: Sequence[tuple[float, int]]) -> Iterator[Span]:
        """The words of a text, each with the label of its first token."""
        parts = zip(self.tokens.words(text), self.tokens.offsets(text).offsets, tokens, strict=True)
        for _, group in groupby(parts, key=lambda part: part[0]):
            (_, (start, end), (p, label)), *rest = group
            yield Span(*trimmed(text, start, rest[-1][1][1] if rest else end), self._label(label), p)

    def _answers(self, question: str, passage: str) -> Iterator[Answer]:
        """The best answer in each window of the passage."""
        asked, (ids, offsets) = self.tokens.encode(question), self.tokens.offsets(passage)
        room = self.context - len(join(self.tokens.tokenizer, asked, ()).ids)
        if room < 1 or not ids:
            what = "the passage is empty" if room > 0 else f"the question leaves {self.name} no room for the passage"
            raise Unsupported(what, then="shorten the question, or give a passage")
        done = 0
        for window in windows(0, ids, 0, room):
            begin, done = done - window.first, done - window.first + len(window.ids)
            framed = join(self.tokens.tokenizer, asked, window.ids)
            logits = self.model.head(*self._read([framed.ids], framed.segments))[0].float()  # (T, 2)
            yield best_answer(logits, framed.at, offsets[begin:done], passage)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of rows of like length, longest first."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def merged(words: Iterable[Span]) -> list[Span]:
    """Words with B- and I- labels (or those of IOBES and BILOU) as spans; a word with another label stands alone."""
    spans: list[list[Span]] = []
    before = ""  # the kind of the span that the next word may go on with
    for word in words:
        prefix, dash, kind = word.label.partition("-")
        schemed = bool(dash) and prefix in BEGINS | GOES_ON
        if schemed and prefix in GOES_ON and kind == before:
            spans[-1].append(word)
        elif word.label != OUTSIDE:
            spans.append([replace(word, label=kind) if schemed else word])
        before = kind if schemed else ""
    return [replace(first, end=[first, *rest][-1].end, p=mean([w.p for w in (first, *rest)])) for first, *rest in spans]


def best_answer(logits: Tensor, at: int, offsets: Sequence[tuple[int, int]], passage: str) -> Answer:
    """Of a row's logits (T, 2), in which the passage's tokens begin at `at` and stand at these characters."""
    n = len(offsets)
    starts, ends = logits[at : at + n].unbind(-1)
    allowed = torch.ones(n, n, dtype=torch.bool, device=logits.device).triu().tril(LONGEST_ANSWER - 1)
    spans = (starts[:, None] + ends).masked_fill(~allowed, -torch.inf).flatten()
    p = torch.cat([spans, logits[:1].sum(-1)]).softmax(-1)
    best = int(p[:-1].argmax())
    start, end = trimmed(passage, offsets[best // n][0], offsets[best % n][1])
    return Answer(passage[start:end], start, end, float(p[best]), float(p[-1]))


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without the white space at its start: some tokenizers count it to the word."""
    return end - len(text[start:end].lstrip()), end
