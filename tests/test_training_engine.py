"""What the loop is given: optimisers, schedules, running means, heads in chunks, batches of unlike length, streams."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qualm.errors import InputError, QualmError, Stopped
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.rnn import Rnn, RnnConfig
from qualm.training import state
from qualm.training.data import IGNORE, Batch, Draw, ExampleRows, StreamRows, TensorRows, TokenRows
from qualm.training.head import CHUNK, cross_entropy
from qualm.training.loop import Hooks, fit
from qualm.training.losses import Carried, causal
from qualm.training.optimisers import inner_matrices, optimiser, orthogonal
from qualm.training.settings import TrainSettings, rate_at

VOCAB = 24
PLAIN = TrainSettings(steps=20, batch=4, lr=1e-2, threads=1, warmup=0, schedule="constant")


def llama(**config) -> Llama:
    return Llama(LlamaConfig(VOCAB, 16, 32, 2, 2, tie_word_embeddings=True, initializer_range=0.2, **config))


def rows(count: int = 32, length: int = 9, seed: int = 0) -> TensorRows:
    ids = torch.randint(VOCAB, (count, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 1::2] = ids[:, :-1:2]  # every other id repeats the one before it
    return TensorRows(ids)


def packed(ids: list[int], ends: list[int]):
    from qualm.corpus.packing import Packed

    return Packed(np.array(ids, np.uint16), np.array(ends), np.full(len(ends), 10), {"documents": "made up"})


# -- the head in chunks


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tied", [True, False])
def test_a_loss_in_chunks_has_the_gradients_of_a_whole_one(smoothing, tied):
    model = llama() if tied else Gpt(GptConfig(VOCAB, 16, 2, 2, 256, tie_word_embeddings=False, initializer_range=0.2))
    ids = torch.randint(VOCAB, (3, CHUNK // 2), generator=torch.Generator().manual_seed(1))
    labels = torch.where(torch.arange(CHUNK // 2) % 5 == 0, IGNORE, ids)
    grads = []
    for chunked in (True, False):
        model.zero_grad()
        hidden = model.hidden(ids)
        if chunked:
            loss = cross_entropy(model.head, hidden, labels, smoothing)
        else:
            flat = model.head(hidden).flatten(0, 1), labels.flatten()
            loss = F.cross_entropy(*flat, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
        (3 * loss).backward()
        grads.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_frozen_head_is_read_and_no_label_is_no_loss():
    model = llama().requires_grad_(False)
    hidden = model.hidden(torch.zeros(1, 4, dtype=torch.long)).requires_grad_()
    cross_entropy(model.head, hidden, torch.tensor([[1, 2, IGNORE, 3]])).backward()
    assert hidden.grad.abs().sum() > 0
    assert hidden.grad[0, 2].abs().sum() == 0
    assert model.lm_head.weight.grad is None
    nothing = torch.zeros(1, 0, dtype=torch.long)
    assert cross_entropy(model.head, hidden[:, :0], nothing).item() == 0


# -- optimisers


def test_orthogonal_keeps_singular_vectors_and_evens_the_values():
    for shape in ((8, 20), (20, 8), (12, 12)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        found = torch.linalg.svdvals(orthogonal(matrix))
        assert 0.6 < float(found.min()) < float(found.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert float(((u @ v) * orthogonal(matrix)).sum() / (found.norm() * min(shape) ** 0.5)) > 0.97


def test_muon_moves_matrices_inside_and_adamw_the_rest():
    model = llama()
    names = {id(p): name for name, p in model.named_parameters()}
    inside = {names[id(p)] for p in inner_matrices(model)}
    assert inside == {n for n, p in model.named_parameters() if "proj" in n}
    made = optimiser(model, replace(PLAIN, optimiser="muon"), 1e-2)
    assert [type(part).__name__ for part in made.parts] == ["AdamW", "Muon"]
    covered = [id(p) for part in made.parts for group in part.param_groups for p in group["params"]]
    assert sorted(covered) == sorted(names)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_each_optimiser_learns_and_resumes_bit_for_bit(name, tmp_path):
    settings = replace(PLAIN, steps=12, optimiser=name, ema=0.9, save_every=3, lr=0.3 if name == "sgd" else 1e-2)
    whole, cut = llama(), llama()
    result = fit(whole, rows(), causal, settings, tmp_path / "whole")
    assert result.loss < 3.2  # nothing learnt is log(24) = 3.18 and more at first
    assert result.loss < json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    stops = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        fit(cut, rows(), causal, settings, tmp_path / "cut", Hooks(should_stop=lambda: next(stops)))
    again = llama()
    fit(again, rows(), causal, settings, tmp_path / "cut")
    assert state.hash_weights(again) == state.hash_weights(whole)


def test_a_running_mean_is_what_is_validated_and_saved(tmp_path):
    seen, settings = [], replace(PLAIN, steps=8, ema=0.8, save_every=4, eval_every=4)
    model = llama()
    raw: list[torch.Tensor] = []

    def validate(shown: nn.Module) -> float:
        seen.append(shown.model.norm.weight.detach().clone())
        return -float(len(seen))

    fit(model, rows(), causal, settings, tmp_path, Hooks(validate, on_step=lambda _: raw.append(0)))
    mean, last = torch.ones(16), llama()
    fit(last, rows(), causal, replace(settings, ema=0.0))
    assert not torch.equal(seen[-1], last.model.norm.weight)
    torch.testing.assert_close(model.model.norm.weight.detach(), seen[-1])
    assert (seen[-1] - mean).abs().max() < (last.model.norm.weight - mean).abs().max()  # it lags behind


def test_warm_up_stable_decay_has_these_values():
    settings = TrainSettings(steps=100, warmup=0.1, schedule="wsd", min_lr=0.0)
    shares = [rate_at(step, 100, 1.0, settings) for step in (1, 10, 50, 82, 91, 100)]
    assert shares == pytest.approx([0.1, 1.0, 1.0, 1.0, 0.5, 0.0])


# -- spikes


def test_a_spike_is_skipped_named_and_stops_the_run_when_it_stays(tmp_path):
    calls, events = [], []

    def loss(model, batch):
        calls.append(1)
        nats, count = causal(model, batch)
        return nats * (1e6 if 12 <= len(calls) <= 13 or len(calls) >= 18 else 1), count

    with pytest.raises(QualmError, match=r"3 updates in a row .* the last good checkpoint is in"):
        fit(llama(), rows(), loss, replace(PLAIN, steps=40, save_every=5), tmp_path, Hooks(on_event=events.append))
    assert [int(e.split()[1].rstrip(":")) for e in events if "skipped" in e] == [12, 13, 18, 19, 20]
    drawn = next(iter(Draw(rows(), 4, 1, 0)(12)))[0]
    assert f"(rows {', '.join(map(str, drawn))})" in events[0]
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[11]["loss"] is None
    assert all(row["loss"] < 5 for row in logged if row["loss"] is not None)


# -- documents apart


def test_tokens_know_their_document():
    """0 is the end token: documents 1 2, 3, 4 5 6."""
    whole = packed([0, 1, 2, 0, 3, 0, 4, 5, 6, 0], [4, 6, 10])
    made = TokenRows(whole, 9, apart=True).batch(np.array([0]), np.array([0]))
    assert made["ids"][0].tolist() == [0, 1, 2, 0, 3, 0, 4, 5, 6]
    assert made["labels"][0].tolist() == [1, 2, 0, 3, 0, 4, 5, 6, 0]
    assert made["documents"][0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("make", [llama, lambda: Gpt(GptConfig(VOCAB, 16, 2, 2, 32, initializer_range=0.2))])
def test_documents_apart_are_read_as_if_alone(make):
    model = make().eval()
    ids = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([[0] * 5 + [1] * 7, [2] * 2 + [3] * 4 + [4] * 6])
    with torch.no_grad():
        hidden = model.hidden(ids, documents=documents)
        for row, (a, b) in ((0, (0, 5)), (0, (5, 12)), (1, (0, 2)), (1, (2, 6)), (1, (6, 12))):
            torch.testing.assert_close(hidden[row : row + 1, a:b], model.hidden(ids[row : row + 1, a:b]))
        assert not torch.allclose(hidden[0, 5:], model.hidden(ids)[0, 5:])


# -- examples of unlike length


def examples(count: int = 100) -> ExampleRows:
    rng = np.random.default_rng(0)
    made = [{"ids": list(range(1, 2 + int(rng.integers(30)))), "labels": i % 3} for i in range(count)]
    return ExampleRows(made, {"from": "here"})


def test_examples_are_padded_and_their_lengths_told():
    made = ExampleRows([{"ids": [5, 6, 7], "labels": [1, 2]}, {"ids": [8], "labels": [3, 4]}], {})
    got = made.batch(np.array([1, 0]), np.array([0, 0]))
    assert got["ids"].tolist() == [[8, 0, 0], [5, 6, 7]]
    assert got["lengths"].tolist() == [1, 3]
    assert got["labels"].tolist() == [[3, 4], [1, 2]]
    assert examples().batch(np.arange(3), np.zeros(3))["labels"].tolist() == [0, 1, 2]
    uneven = ExampleRows([{"ids": [1], "labels": [1]}, {"ids": [1], "labels": [1, 2]}], {})
    assert uneven.batch(np.arange(2), np.zeros(2))["labels"].tolist() == [[1, IGNORE], [1, 2]]
    with pytest.raises(InputError, match="no examples"):
        ExampleRows([], {})


def test_batches_are_of_like_length_and_each_example_comes_once():
    data = examples()
    drawn = data.order(0, 0, 10)
    assert sorted(drawn) == list(range(100))
    assert data.order(0, 0, 10).tolist() == drawn.tolist()
    assert data.order(0, 1, 10).tolist() != drawn.tolist()
    lengths = np.array([len(e["ids"]) for e in data.examples])
    spread = [np.ptp(lengths[drawn[i : i + 10]]) for i in range(0, 100, 10)]
    assert np.mean(spread) < 6 < np.mean([np.ptp(lengths[i : i + 10]) for i in range(0, 100, 10)])
    assert [int(lengths[drawn[i]]) for i in range(0, 100, 10)] != sorted(
        int(lengths[drawn[i]]) for i in range(0, 100, 10)
    )


# -- streams


def text() -> StreamRows:
    ids = np.random.default_rng(5).integers(1, VOCAB, 401).tolist()
    return StreamRows(packed(ids, [401]), 10, 4)


def test_streams_go_on_where_they_ended():
    data = text()
    draw = Draw(data, 4, 1, 0)
    batches = [data.batch(*next(iter(draw(step)))) for step in range(1, 12)]
    for before, after in itertools.pairwise(batches[:10]):
        assert after["ids"][:, 0].tolist() == before["labels"][:, -1].tolist()
    assert [bool(b["first"]) for b in batches] == [True] + [False] * 9 + [True]
    with pytest.raises(InputError, match="do not fill 64 streams"):
        StreamRows(packed([1] * 50, [50]), 10, 64)


def rnn() -> Rnn:
    return Rnn(RnnConfig(vocab_size=VOCAB, hidden_size=12, embedding_size=12, num_hidden_layers=2))


def test_a_carried_state_is_that_of_the_whole_text():
    model, data, loss = rnn().eval(), text(), Carried()
    batches = [data.batch(*next(iter(Draw(data, 4, 1, 0)(step)))) for step in range(1, 5)]
    whole = Batch(ids=torch.cat([b["ids"] for b in batches], 1), labels=torch.cat([b["labels"] for b in batches], 1))
    parts = sum(loss(model, b)[0].item() for b in batches)
    assert parts == pytest.approx(causal(model, whole)[0].item(), rel=1e-5)


def test_a_stateful_run_resumes_bit_for_bit(tmp_path):
    settings = replace(PLAIN, steps=14, save_every=3)
    whole, again = rnn(), rnn()
    fit(whole, text(), Carried(), settings, tmp_path / "whole")
    stops = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        fit(rnn(), text(), Carried(), settings, tmp_path / "cut", Hooks(should_stop=lambda: next(stops)))
    fit(again, text(), Carried(), settings, tmp_path / "cut")
    assert state.hash_weights(again) == state.hash_weights(whole)
