"""Scoring: windows over long texts, and contexts that are read once."""

import random

import pytest
import torch

from qualm.lm import scoring
from qualm.lm.scoring import Span, batches, forks, logprobs, windows
from tiny import tiny_local


@pytest.mark.parametrize("limit", [2, 3, 8, 9])
@pytest.mark.parametrize("length", [2, 3, 7, 8, 9, 10, 40, 41])
def test_every_token_of_a_long_text_is_scored_once_with_half_a_window_before_it(limit, length):
    ids = list(range(length))
    for first in {1, 2, length // 2, length - 1, length} - {0}:
        scored = []
        for span in windows(0, ids, first, limit):
            assert len(span.ids) <= limit
            assert span.first >= 1
            for i in range(span.first, len(span.ids)):
                scored.append(span.ids[i])
                assert i >= min(limit // 2, span.ids[i])
        assert scored == ids[first:]


def test_a_long_text_is_scored_by_its_windows():
    lm, draw = tiny_local(context=32), random.Random(0)
    ids = [draw.randrange(12, lm.tokens.vocab_size) for _ in range(100)]
    [scored] = logprobs(lm.model, [(ids, 1)], 32)
    assert len(scored) == 99
    begin, expected = 0, {}
    while len(expected) < 99:
        row = reference(lm.model, ids[begin : begin + 32])
        expected = {begin + i: value for i, value in row.items()} | expected
        begin = min(begin + 16, 100 - 32)
    assert scored == pytest.approx([expected[i] for i in range(1, 100)], abs=1e-5, rel=2e-6)
    text = "The quick brown fox jumps over the lazy dog. " * 20
    assert len(lm.score([("", text)])[0].logprobs) == len(lm.tokens.encode(text)) > 100


@torch.no_grad()
def reference(model, ids) -> dict[int, float]:
    values = model(torch.tensor([ids]))[0].log_softmax(-1)
    return {i: values[i - 1, ids[i]].item() for i in range(1, len(ids))}


def test_sharing_a_context_changes_nothing(monkeypatch):
    lm, draw = tiny_local(), random.Random(2)
    texts = []
    for _ in range(30):
        context = [draw.randrange(480) for _ in range(draw.randrange(1, 60))]
        for _ in range(draw.randrange(1, 6)):
            border = draw.choice([0, 0, 1, 2])
            answer = [draw.randrange(480) for _ in range(draw.randrange(1, 9))]
            kept = context[: max(1, len(context) - border)]
            texts.append(([*kept, *answer], len(kept)))
    shared = logprobs(lm.model, texts, 96)
    monkeypatch.setattr(scoring, "SHARED", 10**9)
    alone = logprobs(lm.model, texts, 96)
    for (ids, first), a, b in zip(texts, shared, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        whole = reference(lm.model, ids)
        assert a == pytest.approx([whole[i] for i in range(first, len(ids))], abs=3e-5)


def test_the_choices_of_a_question_share_their_context():
    context = list(range(40))
    choices = [Span(i, [*context, 50 + i, 60], 40) for i in range(4)]
    other = [Span(9, [*reversed(context), 1], 40)]
    found = list(forks([*choices, *other]))
    assert [(len(f.spans), f.shared) for f in found] == [(4, 39), (1, 0)]
    short = [Span(i, [1, 2, 3, i], 3) for i in range(4)]
    assert [f.shared for f in forks(short)] == [0] * 4
    system = [Span(i, [*context, *[70 + i] * 30, 1], 70) for i in range(3)]
    assert [f.shared for f in forks(system)] == [0] * 3, "half a context in common does not pay"


def test_no_batch_is_larger_than_it_may_be():
    draw = random.Random(0)
    spans = []
    for i in range(300):
        context = [i, *range(draw.randrange(1, 500))]
        for answer in range(draw.choice([1, 4])):
            spans.append(Span(i, [*context, 7, answer, *range(draw.randrange(1, 30))], len(context)))
    seen = 0
    for batch in batches(forks(spans)):
        seen += sum(len(f.spans) for f in batch)
        rows, width = sum(len(f.spans) for f in batch), max(f.width for f in batch)
        shared = max(f.shared for f in batch)
        assert len(batch) * shared + rows * width <= scoring.BATCH
        assert rows * (shared + width) <= scoring.HELD
        assert len({f.shared > 0 for f in batch}) == 1
    assert seen == len(spans)
