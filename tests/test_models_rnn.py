"""Recurrent language models: torch's numbers, a state that padding does not touch, and every use of a decoder."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qualm.errors import InputError
from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.lm.load import load_base
from qualm.mends.quantize import Quantize
from qualm.mends.temper import Temper
from qualm.models._recurrent import locked_dropout
from qualm.models.layers import left_float, quantize_int8
from qualm.models.rnn import Rnn, RnnConfig
from qualm.models.store import load_model, parameters, save_model
from tiny import TEXTS, tiny_tokens

VOCAB = 53
TORCHS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
KINDS = {
    "elman": {"cell": "elman"},
    "gru": {"cell": "gru", "num_hidden_layers": 3},
    "lstm": {"cell": "lstm", "num_hidden_layers": 2},
    "projected": {"cell": "lstm", "embedding_size": 12},
    "untied": {"cell": "lstm", "embedding_size": 12, "tie_word_embeddings": False, "head_bias": True},
    "untied projected": {"cell": "gru", "embedding_size": 12, "tie_word_embeddings": False, "projection_size": 10},
}
PROMPTS = [*TEXTS, "The", "今天", "😀", "a " * 30, "", "x"]


def made(kind: str = "lstm", **extra) -> Rnn:
    """A model whose weights are wide, so that every term counts."""
    model = Rnn(RnnConfig(**{"vocab_size": VOCAB, "hidden_size": 20, **KINDS[kind], **extra}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4, generator=generator)
    return model.eval()


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    """But for the last digit: weights that a file gave lie elsewhere in memory, and sums run in another order."""
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(3))


def written(kind: str = "lstm") -> CausalLM:
    """A language model that has opinions."""
    tokens = tiny_tokens()
    return CausalLM(made(kind, vocab_size=tokens.vocab_size, bos_token_id=0, eos_token_id=0), tokens, name="tiny")


# -- starting values


def test_a_state_is_kept_at_the_start():
    for cell, (gates, _) in {"elman": (1, 1), "gru": (3, 1), "lstm": (4, 2)}.items():
        model = Rnn(RnnConfig(VOCAB, 24, 2, cell))
        for gate in model.rnn.weight_hh_l1.split(24):
            torch.testing.assert_close(gate @ gate.T, torch.eye(24), atol=1e-5, rtol=0)
        assert len(model.rnn.weight_hh_l1) == gates * 24
        assert model.rnn.weight_ih_l0.abs().max() <= 24**-0.5
        assert model.embed_tokens.weight.abs().max() <= 0.1
        biases = model.rnn.bias_ih_l1 + model.rnn.bias_hh_l1
        assert biases.tolist() == ([0.0] * 24 + [1.0] * 24 + [0.0] * 48 if cell == "lstm" else [0.0] * gates * 24)


def test_the_seed_decides_the_weights():
    model = Rnn(RnnConfig(VOCAB, 24, 2))
    first = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights(1)
    assert not torch.equal(first["rnn.weight_hh_l0"], model.rnn.weight_hh_l0)
    torch.manual_seed(8)
    model.init_weights(0)
    assert all(torch.equal(first[k], v) for k, v in model.state_dict().items())


def test_making_a_model_draws_nothing_from_the_callers_random_numbers():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    Rnn(RnnConfig(VOCAB, 24))
    assert torch.equal(torch.rand(3), wanted)


# -- dropout


def test_dropout_acts_in_training_only_and_on_whole_rows():
    model = made("gru", embd_pdrop=0.3, hidden_dropout_prob=0.3, recurrent_dropout=0.3)
    ids = some_ids(2, 12)
    assert torch.equal(model(ids), made("gru")(ids))
    assert model.config.maths() == made("gru").config.maths()
    model.train()
    assert not torch.equal(model(ids), model(ids))
    dropped = locked_dropout(torch.ones(5, 6, 7), 0.5)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1].expand(5, 6, 7))


@pytest.mark.parametrize("only", ["embd_pdrop", "hidden_dropout_prob", "recurrent_dropout"])
def test_each_dropout_is_felt_and_keeps_the_mean(only):
    model = made("lstm", num_hidden_layers=1, **{only: 0.2}).train()  # one layer: what it puts out is for the head
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.2)  # nearly linear, so that the mean is nearly kept
        ids = some_ids(1, 6).expand(400, 6)
        mean = torch.stack([model(ids).mean(0) for _ in range(10 if only == "recurrent_dropout" else 1)])
        assert mean.std() > 0
        wanted = model.eval()(ids[:1])[0]
    assert (mean.mean(0) - wanted).abs().mean() < 0.25 * wanted.abs().mean()
    dropped = model.train()(ids[:2])
    assert torch.equal(dropped[0], dropped[1]) == (only == "recurrent_dropout")  # one draw of weights for the batch


@torch.no_grad()
def test_a_single_token_is_dropped_too():
    model = made("lstm", embd_pdrop=0, recurrent_dropout=0.5).train()
    cache, ids = model.new_cache(1, 0), some_ids(1, 8)
    model.eval()(ids, cache)
    state = cache.state
    seen = set()
    for _ in range(4):
        cache.state = state
        seen.add(float(model.train()(ids[:, :1], cache).sum()))
    assert len(seen) == 4


@torch.no_grad()
def test_the_weights_from_state_to_state_are_dropped_and_no_others(monkeypatch):
    model, seen = made("lstm", recurrent_dropout=0.5).train(), []
    run = model.rnn._run
    monkeypatch.setattr(
        model.rnn, "_run", lambda x, s, weights, lengths: (seen.extend(weights), run(x, s, weights, lengths))[1]
    )
    model(some_ids(2, 5))
    for (name, weight), used in zip(model.rnn.named_parameters(), seen, strict=True):
        if "weight_hh" in name:
            kept = used != 0
            assert 0.35 < kept.float().mean() < 0.65
            torch.testing.assert_close(used[kept], 2 * weight[kept])
        else:
            assert torch.equal(used, weight)


# -- the model


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_torchs_layers(kind):
    model, ids = made(kind), some_ids(3, 14)
    c = model.config
    theirs = TORCHS[c.cell](c.embedding_size, c.hidden_size, c.num_hidden_layers, batch_first=True)
    theirs.load_state_dict(model.rnn.state_dict())
    states = theirs(model.embed_tokens(ids))[0]
    if c.projection_size:
        states = states @ model.projection.weight.T
    wanted = states @ model.lm_head.weight.T + (model.lm_head.bias if c.head_bias else 0)
    torch.testing.assert_close(model(ids), wanted, atol=1e-5, rtol=0)
    assert (model.lm_head.weight is model.embed_tokens.weight) == c.tie_word_embeddings


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_pieces_is_reading_at_once(kind):
    model, ids = made(kind), some_ids(3, 20)
    cache = model.new_cache(3, 0)
    ends = [0, 9, 10, 15, *range(16, 21)]
    pieces = [model(ids[:, a:b], cache) for a, b in itertools.pairwise(ends)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == [20, 20, 20]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
def test_rows_padded_on_the_right_are_as_if_alone(kind):
    model, ids, lengths = made(kind), some_ids(3, 20), torch.tensor([4, 11, 1])
    cache = model.new_cache(3, 0)
    first = model(ids[:, :11], cache, lengths)
    order = torch.tensor([2, 0, 1, 0])
    cache.keep(order)
    assert cache.lengths.tolist() == [1, 4, 11, 4]
    then = model(ids[order][:, 12:18], cache)
    for row, length in enumerate(lengths.tolist()):
        alone = model(torch.cat((ids[row, :length], ids[row, 12:18]))[None])[0]
        torch.testing.assert_close(first[row, :length], alone[:length], atol=1e-5, rtol=0)
        for place in (order == row).nonzero().flatten().tolist():
            torch.testing.assert_close(then[place], alone[length:], atol=1e-5, rtol=0)


def test_a_detached_state_goes_on_and_lets_no_gradient_back():
    model, ids = made("lstm"), some_ids(2, 10)
    whole = model.hidden(ids)
    cache = model.new_cache(2, 0)
    model.hidden(ids[:, :5], cache)
    cache.detach()
    later = model.hidden(ids[:, 5:], cache)
    torch.testing.assert_close(later, whole[:, 5:], atol=1e-6, rtol=0)
    later.sum().backward()
    cut = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    fed = torch.zeros(VOCAB, dtype=torch.bool).index_fill(0, ids[:, 5:].flatten(), value=True)
    assert not cut["embed_tokens.weight"][~fed].any()
    assert cut["embed_tokens.weight"][fed].any(1).all()


def test_every_weight_gets_a_gradient():
    for kind in KINDS:
        model, ids = Rnn(RnnConfig(**{"vocab_size": VOCAB, "hidden_size": 20, **KINDS[kind]})), some_ids(2, 12)
        nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, (kind, name)
            assert weight.grad.isfinite().all(), (kind, name)
            assert weight.grad.any(), (kind, name)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_operations_are_as_many_as_counted(kind):
    model, ids = made(kind), some_ids(1, 7)
    assert parameters(model) == model.config.parameters
    cache = model.new_cache(1, 0)
    with FlopCounterMode(display=False) as counter:
        for t in range(7):  # token by token: inside the kernel nothing is counted
            model(ids[:, t : t + 1], cache)
    assert model.config.flops(7) == counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_logits_are_the_logits_times_the_factor(kind):
    model, ids = made(kind), some_ids(2, 9)
    embeddings, before = model.embed_tokens.weight.clone(), model(ids)
    model.scale_logits(0.5)
    torch.testing.assert_close(model(ids), before * 0.5, atol=1e-6, rtol=1e-6)
    assert torch.equal(model.embed_tokens.weight, embeddings)
    assert not model.config.tie_word_embeddings
    assert parameters(model) == model.config.parameters


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_saved_and_loaded_also_in_8_bits(kind, tmp_path):
    model, ids = made(kind), some_ids(2, 9)
    save_model(model, tmp_path / "float")
    same(load_model(tmp_path / "float")(ids), model(ids))
    small = quantize_int8(copy.deepcopy(model))
    assert left_float(small) == []
    error = (small(ids) - model(ids)).pow(2).mean().sqrt() / model(ids).std()
    assert 0 < error < 0.03
    save_model(small, tmp_path / "int8")
    same(load_model(tmp_path / "int8")(ids), small(ids))
    small.scale_logits(2.0)
    save_model(small, tmp_path / "scaled")
    same(load_model(tmp_path / "scaled")(ids), small(ids))


@torch.no_grad()
def test_half_precision_is_near():
    model, ids = made("gru"), some_ids(2, 12)
    exact, near = model(ids), copy.deepcopy(model).bfloat16()
    assert near.new_cache(2, 0).state[0].dtype == torch.bfloat16
    assert (near(ids) - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_the_dial_gives_larger_models():
    sizes = [RnnConfig.sized(depth, 512 * depth, 128, eos_token_id=0).parameters for depth in (1, 2, 4, 8, 12)]
    assert sizes == sorted(sizes)
    assert RnnConfig.sized(4, 2048, 128).parameters == 1_576_960


# -- as a language model


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=20), Sampling(max_tokens=20, temperature=1.0, top_p=0.9)])
@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
def test_a_batch_says_what_each_prompt_alone_is_told(kind, sampling):
    lm = written(kind)
    for prompt, together in zip(PROMPTS, lm.generate(PROMPTS, sampling), strict=True):
        alone = lm.generate([prompt], sampling)[0]
        assert (together.text, together.finish) == (alone.text, alone.finish)
        assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert alone.text == "".join(lm.stream(prompt, sampling))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["elman", "gru", "untied"])
def test_scores_are_the_whole_texts_also_where_contexts_are_shared(kind):
    lm = written(kind)
    shared = [(TEXTS[0] + prompt, end) for prompt in ("", "The fox") for end in (" and so", " Paris", "中文", " x y z")]
    pairs = [*shared, *((prompt, " and so") for prompt in PROMPTS), ("", TEXTS[1])]
    for (context, continuation), scored in zip(pairs, lm.score(pairs), strict=True):
        ids, first = lm.tokens.encode_pair(context, continuation)
        wanted = lm.model(torch.tensor([ids]))[0].log_softmax(-1)
        wanted = [wanted[i - 1, ids[i]].item() for i in range(first, len(ids))]
        assert scored.logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("kind", ["lstm", "untied"])
def test_mends_of_the_weights_leave_the_model_as_it_was(kind, tmp_path):
    lm, pair = written(kind), [("The", " quick brown")]
    before = lm.score(pair)
    for mend in (Temper(2.0), Quantize()):
        mended = mend(lm)
        assert mended.score(pair)[0].total != pytest.approx(before[0].total, abs=1e-5)
        assert lm.score(pair) == before
        folder = tmp_path / type(mend).__name__
        mended.save(folder)
        assert load_base(folder).score(pair)[0].logprobs == pytest.approx(mended.score(pair)[0].logprobs, abs=1e-5)
    both = Quantize()(Temper(2.0)(lm)), Temper(2.0)(Quantize()(lm))
    assert both[0].score(pair)[0].total == pytest.approx(both[1].score(pair)[0].total, abs=1e-4)


# -- bad input


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cell": "lstn"}, "cell = 'lstn' is none of elman, gru, lstm"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"embedding_size": -3}, "embedding_size"),
        ({"projection_size": -3}, "projection_size"),
        ({"projection_size": 9}, "projection_size = 9.*tie_word_embeddings"),
        ({"recurrent_dropout": 1.0}, "recurrent_dropout"),
        ({"embd_pdrop": -0.1}, "embd_pdrop"),
        ({"head_bias": 1}, "head_bias"),
        ({"bidirectional": True}, "bidirectional"),
        ({"hidden_sise": 3}, "did you mean 'hidden_size'"),
    ],
)
def test_a_config_that_would_give_wrong_answers_is_refused(change, word):
    raw = {"model_type": "qualm-rnn", "vocab_size": VOCAB, "hidden_size": 8, **change}
    with pytest.raises(InputError, match=word) as caught:
        RnnConfig.from_hf(raw, "there/config.json")
    assert caught.value.where == "there/config.json"
    assert caught.value.then


def test_a_config_comes_back_from_its_file():
    for kind in KINDS:
        config = made(kind).config
        assert RnnConfig.from_hf(config.to_hf()) == config


def test_weights_of_another_shape_are_named(tmp_path):
    save_model(made("lstm"), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"lstm"', '"gru"'))
    with pytest.raises(InputError, match=r"rnn\.\w+_l0.* is \[80"):
        load_model(tmp_path)
