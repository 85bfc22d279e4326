"""The BiLSTM classifier: Keras's window with its padding, rows that do not touch each other, counts that are right."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from qualm.errors import InputError
from qualm.lm.encoder import EncoderLM
from qualm.models.bilstm import Bilstm, BilstmConfig
from qualm.models.layers import quantize_int8
from qualm.models.store import load_model, parameters, save_model
from tiny import TEXTS, tiny_tokens

VOCAB = 53


def made(vocab: int = VOCAB, **extra) -> Bilstm:
    model = Bilstm(BilstmConfig(vocab, 10, 12, 9, **{"window": 8, **extra}))
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


def by_keras(model: Bilstm, row: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """States (window, D) in the window's own order, and logits, of torch's layer over the filled-up window."""
    kept = row[-8:]
    layer = nn.LSTM(10, 12, batch_first=True, bidirectional=True)
    layer.load_state_dict(model.lstm.state_dict())
    states = layer(model.embedding.weight[[0] * (8 - len(kept)) + kept][None])[0][0]
    return states, model.classifier(model.dense(states.max(0).values).relu())


@pytest.mark.parametrize("length", [1, 5, 8, 11])
def test_logits_are_those_of_the_filled_up_window(length):
    model, ids = made(), some_ids(1, length)
    states, logits = by_keras(model, ids[0].tolist())
    same(model(ids)[0], logits)
    words = min(length, 8)
    same(model.hidden(ids)[0], torch.cat([states[8 - words :], states[: 8 - words]]))


def test_padding_counts_for_the_maximum():
    model, ids = made(), some_ids(1, 3)
    states, logits = by_keras(model, ids[0].tolist())
    without = model.classifier(model.dense(states[-3:].max(0).values).relu())
    assert (logits - without).abs().max() > 1e-3


def test_rows_of_unlike_length_do_not_touch_each_other():
    model, ids = made(), some_ids(4, 12)
    lengths = torch.tensor([12, 3, 8, 1])
    together = model(ids, lengths)
    for row, n in enumerate(lengths.tolist()):
        same(together[row], model(ids[row : row + 1, :n])[0])
    ids[1, 3:] = 7
    same(model(ids, lengths), together)


def test_counts_are_those_of_the_weights_and_of_the_products():
    model = made()
    assert model.config.parameters == parameters(model)
    products = 8 * sum(w.numel() for name, w in model.lstm.named_parameters() if "weight" in name)
    products += model.dense.weight.numel() + model.classifier.weight.numel()
    assert model.config.flops(3) == model.config.flops(30) == 2 * products


def test_it_comes_back_from_disk_in_floats_and_in_8_bits(tmp_path):
    model, ids = made(id2label={"0": "good", "1": "bad", "2": "ugly"}), some_ids(2, 9)
    save_model(model, tmp_path / "float")
    again = load_model(tmp_path / "float")
    assert again.config == model.config
    assert again.config.labels == ("good", "bad", "ugly")
    same(again(ids), model(ids))
    small = quantize_int8(copy.deepcopy(model))
    save_model(small, tmp_path / "int8")
    same(load_model(tmp_path / "int8")(ids), small(ids))


def test_it_classifies_and_embeds_texts():
    tokens = tiny_tokens()
    lm = EncoderLM(made(tokens.vocab_size, window=40), tokens)
    found = lm.classify(TEXTS)
    logits = lm.model(torch.tensor([tokens.encode_source(TEXTS[0])]))[0]
    same(torch.tensor(list(found[0].values())), logits.sigmoid())
    vectors = lm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": {}},
        {"id2label": {"0": 5}},
        {"problem_type": "regression"},
        {"window": 0},
        {"tie_word_embeddings": True},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BilstmConfig(5, 4, 4, 4, **wrong)
