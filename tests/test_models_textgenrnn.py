"""textgenrnn's network: only the window counts, the cache holds it, padding is never read, and its sums are right."""

import copy

import pytest
import torch
from torch import nn

from qualm.errors import InputError
from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.models import textgenrnn
from qualm.models.layers import quantize_int8
from qualm.models.store import load_model, parameters, save_model
from qualm.models.textgenrnn import Textgenrnn, TextgenrnnConfig
from tiny import TEXTS, tiny_tokens

VOCAB = 53


def made(vocab: int = VOCAB, **extra) -> Textgenrnn:
    """A model whose weights are wide, so that every term counts."""
    shape = {"embedding_size": 10, "hidden_size": 12, "window": 8, **extra}
    model = Textgenrnn(TextgenrnnConfig(vocab, **shape))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4, generator=generator)
    return model.eval()


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(3))


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_logits_are_those_of_torchs_layers_over_each_window():
    model, ids = made(), some_ids(13)
    layers = [nn.LSTM(10, 12, batch_first=True), nn.LSTM(12, 12, batch_first=True)]
    for layer, own in zip(layers, (model.rnn_1, model.rnn_2), strict=True):
        layer.load_state_dict(own.state_dict())
    for last in range(13):
        window = [0] * (7 - last) + ids[max(0, last - 7) : last + 1].tolist()
        x = model.embedding.weight[window][None]
        first = layers[0](x)[0]
        read = torch.cat([x, first, layers[1](first)[0]], -1)[0]
        weights = torch.softmax(read @ model.attention.weight[0], 0)
        wanted = (weights[:, None] * read).sum(0) @ model.output.weight.T + model.output.bias
        same(model(ids[None])[0, last], wanted)


def test_what_stands_before_the_window_does_not_count():
    model, ids = made(), some_ids(1, 20)
    other = ids.clone()
    other[:, :12] = 1
    same(model(ids)[:, -1], model(other)[:, -1])
    assert not torch.allclose(model(ids)[:, -2], model(other)[:, -2], atol=1e-4)


@pytest.mark.parametrize("pieces", [(20,), (1,) * 20, (3, 9, 1, 7), (12, 8)])
def test_piece_by_piece_is_the_same(pieces):
    model, ids = made(), some_ids(2, 20)
    cache = model.new_cache(2, 0)
    same(torch.cat([model(part, cache) for part in ids.split(pieces, 1)], 1), model(ids))
    assert cache.lengths.tolist() == [20, 20]


def test_padding_is_not_kept_and_rows_can_be_chosen():
    model, ids = made(), some_ids(3, 12)
    lengths = torch.tensor([12, 3, 1])
    cache = model.new_cache(3, 12)
    model.hidden(ids, cache, lengths)
    cache.keep(torch.tensor([2, 1, 1]))
    assert cache.lengths.tolist() == [1, 3, 3]
    after = model(some_ids(3, 2), cache)
    for row, (source, n) in enumerate([(2, 1), (1, 3), (1, 3)]):
        same(after[row], model(torch.cat([ids[source, :n], some_ids(3, 2)[row]])[None])[0, -2:])


def test_long_texts_are_read_in_blocks(monkeypatch):
    model, ids = made(), some_ids(2, 30)
    whole = model(ids)
    monkeypatch.setattr(textgenrnn, "BLOCK", 8 * 7)
    same(model(ids), whole)


def test_parameters_are_counted():
    model = made()
    assert model.config.parameters == parameters(model)


def test_it_comes_back_from_disk_in_floats_and_in_8_bits(tmp_path):
    model, ids = made(), some_ids(2, 9)
    save_model(model, tmp_path / "float")
    same(load_model(tmp_path / "float")(ids), model(ids))
    small = quantize_int8(copy.deepcopy(model))
    save_model(small, tmp_path / "int8")
    same(load_model(tmp_path / "int8")(ids), small(ids))
    assert (small(ids) - model(ids)).abs().max() < 0.2


def test_logits_can_be_scaled():
    model, ids = made(), some_ids(1, 9)
    before = model(ids)
    model.scale_logits(0.5)
    same(model(ids), 0.5 * before)


def test_it_writes_and_scores_as_a_language_model():
    tokens = tiny_tokens()
    lm = CausalLM(made(tokens.vocab_size, bos_token_id=0, eos_token_id=0), tokens)
    sampling = Sampling(max_tokens=20)
    together = [written.text for written in lm.generate(TEXTS[:3], sampling)]
    assert together == [lm.generate([text], sampling)[0].text for text in TEXTS[:3]]
    (scored,) = lm.score([("", TEXTS[0])])
    ids = [0, *tokens.encode(TEXTS[0])]
    wanted = lm.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    same(torch.tensor(scored.logprobs), wanted)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"hidden_size": 0}, {"tie_word_embeddings": True}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TextgenrnnConfig(5, **wrong)
