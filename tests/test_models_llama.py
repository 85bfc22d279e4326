"""The decoders' counts, their dropout, their first weights, and what stretches rotary positions."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qualm.errors import InputError
from qualm.models._rope import Rotary, frequencies
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import KINDS, Llama, LlamaConfig
from qualm.models.store import load_model, model_class, parameters, save_model, weights_hash
from test_models import CONFIGS, LLAMA3, YARN, ours, some_ids

SMOLLM2 = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
SMOLLM2 |= {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_counts_weights_and_work_as_torch_does(name):
    model, ids = ours(name), some_ids(1, 20)
    assert model.config.parameters == parameters(model)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(ids)
    assert model.config.flops(20) == counter.get_total_flops()


def test_published_models_have_their_published_counts():
    """GPT-2 small, and SmolLM2-135M."""
    assert GptConfig(50257, 768, 12, 12).parameters == 124_439_808
    assert LlamaConfig(**SMOLLM2).parameters == 134_515_008


@pytest.mark.parametrize("kind", KINDS)
def test_the_dial_turns_every_kind(kind):
    config = LlamaConfig.sized(2, 96, 32, model_type=kind)
    model = Llama(config)
    assert parameters(model) == config.parameters
    assert model(some_ids(1, 64).clamp(max=95)).shape == (1, 64, 96)


# -- dropout


@pytest.mark.parametrize("key", ["attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout"])
def test_dropout_acts_in_training_only(key):
    name = "llama" if key == "attention_dropout" else "gpt2"
    plain, ids = ours(name), some_ids(2, 12)
    raw = {**plain.config.to_hf(), key: 0.5}
    model = type(plain)(type(plain.config).from_hf(raw))
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(ids), plain(ids))
        torch.manual_seed(0)
        first, second = model.train()(ids), model(ids)
        assert not torch.allclose(first, second)
        mean = torch.stack([model(ids) for _ in range(40)]).mean(0)
    assert (mean - first).abs().mean() > 0
    assert weights_hash(model) == weights_hash(plain)
    assert model.config.to_hf()[key] == 0.5


def test_dropout_left_out_of_a_config_is_hugging_faces():
    sizes = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_layer": 1, "n_head": 4}
    config = GptConfig.from_hf(sizes)
    assert (config.attn_pdrop, config.embd_pdrop, config.resid_pdrop) == (0.1, 0.1, 0.1)
    assert GptConfig.sized(1, 97, 16).resid_pdrop == 0.0
    assert GptConfig.from_hf(GptConfig.sized(1, 97, 16).to_hf()) == GptConfig.sized(1, 97, 16)
    with pytest.raises(InputError, match="embd_pdrop"):
        GptConfig.from_hf({**sizes, "embd_pdrop": 1.0})
    with pytest.raises(InputError, match="activation_function"):
        GptConfig.from_hf({**sizes, "activation_function": "relu"})


def test_attention_dropout_drops_its_share():
    """With v = 1 everywhere, what comes out is the share of attention that was kept, over the share that may be."""
    from qualm.models.layers import Reading, attend

    torch.manual_seed(0)
    q, v = torch.zeros(1, 1, 400, 2), torch.ones(1, 1, 400, 2)
    out = attend(q, q, v, Reading(torch.zeros(1, 400).long(), None, dropout=0.25), 0)
    assert out[0, 100:].mean() == pytest.approx(1.0, abs=0.02)
    assert out[0, 0, 0].item() in (0.0, pytest.approx(4 / 3))


# -- first weights


def test_olmo2_draws_all_its_matrices_alike():
    model = Llama(LlamaConfig.sized(3, 200, 32, model_type="olmo2"))
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            assert weight.std().item() == pytest.approx(96**-0.5, rel=0.1), name
    other = Llama(LlamaConfig.sized(3, 200, 32))
    assert other.model.layers[0].mlp.down_proj.weight.std().item() == pytest.approx((96 * 6) ** -0.5, rel=0.1)


# -- rotary positions


def test_yarn_keeps_fast_channels_and_slows_slow_ones():
    plain = frequencies(64, 10_000.0, None)
    yarn = frequencies(64, 10_000.0, {**YARN, "factor": 8.0, "original_max_position_embeddings": 2048.0})
    turns = 2048 * plain / (2 * math.pi)  # over the trained length
    assert torch.equal(yarn[turns > 40], plain[turns > 40])
    torch.testing.assert_close(yarn[turns < 0.7], plain[turns < 0.7] / 8)
    between = (turns < 20) & (turns > 2)
    assert ((yarn[between] < plain[between]) & (yarn[between] > plain[between] / 8)).all()


def test_yarn_sharpens_attention():
    scaling = {**YARN, "rope_type": "yarn"}
    loud = Rotary(16, 500.0, scaling, 16).loudness
    assert loud == pytest.approx(0.1 * math.log(4.0) + 1)
    assert Rotary(16, 500.0, {**scaling, "attention_factor": 1.0}, 16).loudness == 1.0
    assert Rotary(16, 500.0, LLAMA3, 16).loudness == 1.0


def test_dynamic_scaling_begins_beyond_the_trained_length():
    plain, dynamic = (Rotary(16, 500.0, scaling, 24) for scaling in (None, {"rope_type": "dynamic", "factor": 4.0}))
    near, far = torch.arange(24)[None], torch.arange(25)[None]
    assert all(torch.equal(a, b) for a, b in zip(plain(near, torch.float32), dynamic(near, torch.float32), strict=True))
    assert not torch.equal(plain(far, torch.float32)[1], dynamic(far, torch.float32)[1])


def test_layers_without_positions_do_not_know_the_order():
    """The last token's state is the same however the ones before it are shuffled: with no causal order below it."""
    config = LlamaConfig(97, 48, 80, 1, 4, no_rope_layers=(0,), initializer_range=0.3, model_type="smollm3")
    model = Llama(config).eval()
    ids = some_ids(1, 9)
    shuffled = torch.cat([ids[:, :8].flip(1), ids[:, 8:]], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, -1], model(shuffled)[:, -1], atol=1e-5, rtol=0)
        turned = Llama(LlamaConfig(97, 48, 80, 1, 4, initializer_range=0.3)).eval()
        assert (turned(ids)[:, -1] - turned(shuffled)[:, -1]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["llama yarn", "smollm3 window", "olmo2", "gpt2 gelu"])
def test_new_kinds_come_back_from_disk(name, tmp_path):
    model = ours(name)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert type(again) is model_class(model.config.model_type)
    assert again.config == model.config
    assert weights_hash(again) == weights_hash(model)


def test_what_changes_the_logits_changes_the_hash():
    hashes = set()
    for change in ({}, {"no_rope_layers": (1, 0, 1)}, {"use_sliding_window": True, "sliding_window": 4}):
        config = LlamaConfig(97, 48, 80, 3, 4, no_rope_layer_interval=3, model_type="smollm3", **change)
        model = Llama(config)
        hashes.add(weights_hash(model))
    assert len(hashes) == 3
    derived = LlamaConfig(97, 48, 80, 3, 4, no_rope_layers=(1, 1, 0), model_type="smollm3")
    assert weights_hash(Llama(derived)) in hashes


def test_a_gpt_with_no_dropout_has_what_it_had():
    model = Gpt(GptConfig.sized(1, 97, 16))
    ids = some_ids(1, 8)
    with torch.no_grad():
        assert torch.equal(model.train()(ids), model.eval()(ids))
