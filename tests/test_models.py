"""The decoders compute what transformers computes, with and without a cache, in 8 bits nearly so."""

import copy
import itertools

import pytest
import torch
import transformers

from qualm.errors import InputError
from qualm.models import layers
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.layers import Int8Linear, left_float, quantize_int8
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.store import bytes_of, parameters

VOCAB = 97
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
GPT_SIZES = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
WINDOWED = ["full_attention", "sliding_attention", "sliding_attention"]
CONFIGS = {
    "llama": ("Llama", {}),
    "llama tied": ("Llama", {"tie_word_embeddings": True, "head_dim": 16, "rms_norm_eps": 1e-3}),
    "llama biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 6}),
    "llama llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0}}),
    "llama dynamic": ("Llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 24}),
    "llama yarn": ("Llama", {"rope_parameters": {**YARN, "beta_fast": 4.0}, "max_position_embeddings": 64}),
    "mistral": ("Mistral", {"sliding_window": 5, "head_dim": 8}),
    "mistral whole": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen2 yarn": ("Qwen2", {"rope_parameters": {**YARN, "attention_factor": 1.3}, "head_dim": 16}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3 window": ("Qwen3", {"use_sliding_window": True, "sliding_window": 4, "layer_types": WINDOWED}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "smollm3 window": (
        "SmolLM3",
        {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 4, "tie_word_embeddings": False},
    ),
    "olmo2": ("Olmo2", {}),
    "olmo2 biases": ("Olmo2", {"attention_bias": True, "num_key_value_heads": 6, "tie_word_embeddings": True}),
    "gpt2": ("GPT2", {}),
    "gpt2 gelu": ("GPT2", {"activation_function": "gelu"}),
    "gpt2 inner": ("GPT2", {"n_inner": 40, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False}),
}


def theirs(name: str) -> transformers.PreTrainedModel:
    """transformers' model of a tiny config, with large weights so that every term counts."""
    family, extra = CONFIGS[name]
    sizes = GPT_SIZES if family == "GPT2" else SIZES
    config = getattr(transformers, f"{family}Config")(
        **{**sizes, **extra}, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=generator)
    return model


def ours(name: str) -> Llama | Gpt:
    """Our model with transformers' weights."""
    reference = theirs(name)
    family = Gpt if name.startswith("gpt2") else Llama
    model = family(family.config_class.from_hf(reference.config.to_dict()))
    model.load_state_dict(reference.state_dict())
    return model.eval()


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_transformers(name):
    ids = some_ids(2, 40)
    torch.testing.assert_close(ours(name)(ids), theirs(name)(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_rebuilds_the_model_from_our_config(name):
    model = ours(name)
    other = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**model.config.to_hf()))
    other.eval().load_state_dict(model.state_dict())
    ids = some_ids(2, 40)
    torch.testing.assert_close(model(ids), other(ids).logits, atol=1e-4, rtol=0)
    assert type(model.config).from_hf(model.config.to_hf()) == model.config


@pytest.mark.parametrize("name", ["llama llama3", "qwen2 window", "gpt2"])
def test_half_precision_is_transformers(name):
    model, reference, ids = ours(name).bfloat16(), theirs(name).bfloat16(), some_ids(2, 12)
    exact = ours(name)(ids)
    error, known = (model(ids) - exact).abs().mean(), (reference(ids).logits - exact).abs().mean()
    assert error < 1.2 * known
    assert model.new_cache(1, 4).keys[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name",
    ["llama", "llama biases", "mistral", "qwen2 window", "qwen3", "smollm3 window", "olmo2", "llama yarn", "gpt2"],
)
def test_reading_in_pieces_is_reading_at_once(name):
    model, ids = ours(name), some_ids(3, 30)
    cache = model.new_cache(3, 4)  # too short: it must grow
    ends = [0, 11, 17, 18, *range(19, 31)]
    pieces = [model(ids[:, a:b], cache) for a, b in itertools.pairwise(ends)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [30, 30, 30]


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2 window", "qwen3", "smollm3 window", "olmo2", "llama yarn", "gpt2"]
)
def test_rows_padded_on_the_right_are_as_if_alone(name):
    model, ids = ours(name), some_ids(3, 30)
    lengths = torch.tensor([4, 11, 7])
    alone = [model(ids[i : i + 1])[0] for i in range(3)]
    padded = ids[:, :11].clone()
    for row, length in enumerate(lengths.tolist()):
        padded[row, length:] = 0
    cache = model.new_cache(3, 30)
    first = model(padded, cache)
    cache.lengths = lengths.clone()
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(first[row, :length], alone[row][:length], atol=1e-4, rtol=0)
    for _ in range(5):
        at = cache.lengths.clone()
        logits = model(ids[torch.arange(3), at][:, None], cache)[:, 0]
        torch.testing.assert_close(logits, torch.stack([alone[i][at[i]] for i in range(3)]), atol=1e-4, rtol=0)
    cache.keep(torch.tensor([2, 0, 2]))
    at = cache.lengths.tolist()
    assert at == [12, 9, 12]
    rows = [(2, 12), (0, 9), (2, 12)]
    logits = model(torch.stack([ids[i, n : n + 3] for i, n in rows]), cache)
    wanted = torch.stack([alone[i][n : n + 3] for i, n in rows])
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


def test_a_trimmed_cache_forgets_what_came_after():
    model, ids = ours("llama"), some_ids(2, 20)
    cache = model.new_cache(2, 20)
    model(ids, cache)
    cache.trim(8)
    torch.testing.assert_close(model(ids[:, 8:12], cache), model(ids[:, :12])[:, 8:], atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [12, 12]
    assert cache.bytes == 3 * 2 * 2 * 2 * 20 * 8 * 4  # layers, kinds, rows, heads, slots, channels, bytes


@pytest.mark.parametrize("name", ["llama tied", "qwen3", "olmo2", "gpt2"])
def test_scaled_logits_are_the_logits_times_the_factor(name):
    model, ids = ours(name), some_ids(2, 9)
    before = model(ids)
    model.scale_logits(0.5)
    assert torch.equal(model(ids), before * 0.5)
    model.scale_logits(2.6)
    torch.testing.assert_close(model(ids), before * 1.3, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama tied", "llama biases", "qwen2", "olmo2", "gpt2"])
def test_weights_in_8_bits_say_nearly_the_same_in_a_quarter_of_the_bytes(name):
    model, ids = ours(name), some_ids(2, 20)
    exact, count, size = model(ids), parameters(model), bytes_of(model)
    quantised = quantize_int8(copy.deepcopy(model))
    error = (quantised(ids) - exact).pow(2).mean().sqrt() / exact.std()
    assert 0 < error < 0.03
    assert bytes_of(quantised) < 0.36 * size  # at these sizes scales, biases and norms are a tenth
    assert parameters(quantised) == count
    assert left_float(quantised) == []
    assert left_float(model) is None
    cache = quantised.new_cache(2, 20)
    pieces = torch.cat([quantised(ids[:, :9], cache), quantised(ids[:, 9:], cache)], 1)
    torch.testing.assert_close(pieces, quantised(ids), atol=1e-4, rtol=0)


def test_tied_weights_stay_one_in_8_bits():
    model = quantize_int8(ours("llama tied"))
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert left_float(quantize_int8(ours("llama"), skip=["lm_head"])) == ["lm_head"]
    assert left_float(quantize_int8(ours("llama tied"), skip=["lm_head"])) == ["lm_head", "model.embed_tokens"]


@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_an_int8_linear_is_the_linear_of_its_rounded_weights(block, monkeypatch):
    monkeypatch.setattr(layers, "BLOCK", block)
    plain = torch.nn.Linear(32, 21)
    weight, scale = layers.int8_rows(plain.weight)
    assert (weight * scale[:, None] - plain.weight).abs().max() <= scale.max() * 0.5001
    x = some_ids(2, 5, 32).float()
    wanted = torch.nn.functional.linear(x, weight * scale[:, None], plain.bias)
    torch.testing.assert_close(Int8Linear(weight, scale, plain.bias)(x), wanted, atol=1e-3, rtol=1e-5)


def test_a_row_of_zeros_stays_zero_in_8_bits():
    weight, scale = layers.int8_rows(torch.zeros(2, 8))
    assert not (weight * scale[:, None]).any()


@pytest.mark.parametrize("family", [Llama, Gpt])
def test_the_seed_decides_the_weights(family):
    model = _made(family)
    first = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights(1)
    assert not torch.equal(first["lm_head.weight"], model.lm_head.weight)
    model.init_weights(0)
    assert all(torch.equal(first[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("family", [Llama, Gpt])
def test_weights_that_write_to_the_residual_stream_start_smaller(family):
    model = _made(family)
    widths = {name: weight.std().item() for name, weight in model.named_parameters() if weight.dim() == 2}
    for name, width in widths.items():
        wanted = 0.04 / 4 if name.endswith(model.residual) else 0.04  # sqrt(2 * 8 layers) = 4
        assert width == pytest.approx(wanted, rel=0.1), name
    assert sum(name.endswith(model.residual) for name in widths) == 16


def _made(family: type) -> Llama | Gpt:
    if family is Llama:
        return Llama(LlamaConfig(300, 64, 96, 8, 4, 2, initializer_range=0.04))
    return Gpt(GptConfig(300, 64, 8, 4, n_positions=64, initializer_range=0.04))


@pytest.mark.parametrize("family", [Llama, Gpt])
def test_every_weight_gets_a_gradient(family):
    model = _made(family)
    with torch.enable_grad():
        logits = model(some_ids(2, 12))
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), some_ids(2, 12)[:, 1:].flatten()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"hidden_size": 50}, "num_attention_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"hidden_size": 2**40}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": "97"}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "original_max_position_embeddings"),
        ({"rope_scaling": {**YARN, "mscale": 1.0}}, "mscale"),
        ({"rope_scaling": {**YARN, "beta_fast": 1.0, "beta_slow": 32.0}}, "beta_fast"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 3.0}}, "alpha"),
        ({"no_rope_layers": [1, 0, 1]}, "no_rope_layers"),
        ({"sliding_window": 4}, "sliding_window = 4 means nothing in a llama"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "no_rope_layers"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ({"model_type": "olmo2", "mlp_bias": True}, "mlp_bias"),
        ({"attention_dropout": 1.0}, "attention_dropout"),
        ({"rope_scaling": {"rope_type": ["linear"], "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "factor"),
        ({"rope_scaling": [2.0]}, "rope_scaling"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types"),
        ({"layer_types": ["full_attention", "full_attention", "chunked_attention"]}, "chunked_attention"),
        ({"logit_scale": 0.1}, "logit_scale"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
        ({"rms_norm_epsilon": 1e-5}, "did you mean 'rms_norm_eps'"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "auto_map.*code"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
    ],
)
def test_a_config_that_would_give_wrong_answers_is_refused(change, word):
    with pytest.raises(InputError, match=word) as caught:
        LlamaConfig.from_hf({"model_type": "llama", **SIZES, **change}, "there/config.json")
    assert caught.value.where == "there/config.json"
    assert caught.value.then


@pytest.mark.parametrize("key", ["scale_attn_by_inverse_layer_idx", "add_cross_attention"])
def test_a_gpt_config_that_would_give_wrong_answers_is_refused(key):
    with pytest.raises(InputError, match=key):
        GptConfig.from_hf({"model_type": "gpt2", **GPT_SIZES, key: True})
    with pytest.raises(InputError, match="'n_embd' is missing"):
        GptConfig.from_hf({"model_type": "gpt2", **{k: v for k, v in GPT_SIZES.items() if k != "n_embd"}})


def test_published_configs_are_read():
    smol = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": [2, 0],
        "hidden_act": "silu",
        "initializer_range": 0.041666666666666664,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "model_type": "llama",
        "pad_token_id": 2,
        "pretraining_tp": 2,  # how the products were cut in training
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
        "transformers_version": "4.42.3",
        "use_cache": True,
        **SIZES,
    }
    config = LlamaConfig.from_hf(smol)
    assert (config.head_dim, config.eos_token_id, config.rope_theta) == (8, (2, 0), 100000)
    assert config.to_hf()["rope_parameters"] == {"rope_theta": 100000, "rope_type": "default"}
    assert config.to_hf("bfloat16")["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3"])
def test_max_window_layers_says_what_layer_types_say(kind):
    extra = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    raw = getattr(transformers, f"{kind}Config")(**SIZES, **extra).to_dict()
    said = LlamaConfig.from_hf(raw)
    derived = LlamaConfig.from_hf({key: value for key, value in raw.items() if key != "layer_types"})
    assert said.layer_types
    assert derived.layer_types is None
    assert said.maths() == derived.maths()
    assert derived.maths()["windows"] == [None, 4, 4]


KINDS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3"}
KINDS |= {"olmo2": "Olmo2"}


def test_a_key_left_out_means_what_it_means_in_transformers():
    for kind, name in KINDS.items():
        sizes = {**SIZES, "num_attention_heads": 64, "hidden_size": 128, "pad_token_id": 0}
        del sizes["num_key_value_heads"]
        config = LlamaConfig.from_hf({"model_type": kind, **sizes})
        default = getattr(transformers, f"{name}Config")(**sizes)
        for key in ("sliding_window", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "eos_token_id"):
            if hasattr(default, key):
                assert getattr(config, key) == getattr(default, key), (kind, key)
        reference = transformers.AutoModelForCausalLM.from_config(default)
        Llama(config).load_state_dict(reference.state_dict())
