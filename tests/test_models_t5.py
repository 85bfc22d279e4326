"""T5 computes what transformers computes, written and read both ways, with and without a cache, in 8 bits nearly so."""

import copy
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qualm.errors import InputError
from qualm.lm.decode import padded, steps
from qualm.lm.search import greedy
from qualm.models._caches import CrossCache
from qualm.models.layers import quantize_int8
from qualm.models.store import bytes_of, load_model, parameters, save_model
from qualm.models.t5 import T5, T5Config, buckets

VOCAB = 61
SIZES = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_heads": 4}
SIZES |= {"decoder_start_token_id": 0}
APART = {"tie_word_embeddings": False}
CONFIGS = {
    "v1.0": ("T5", {}),
    "v1.0 narrow": ("T5", {"num_decoder_layers": 1, "d_kv": 5, "num_heads": 3, "layer_norm_epsilon": 1e-3}),
    "v1.1": ("T5", {**APART, "feed_forward_proj": "gated-gelu"}),
    "v1.1 deep": ("T5", {**APART, "feed_forward_proj": "gated-gelu", "num_layers": 2, "num_decoder_layers": 4}),
    "v1.1 with the head of v1.0": ("T5", {**APART, "feed_forward_proj": "gated-gelu", "tied": True}),
    "byt5": ("T5", {**APART, "feed_forward_proj": "gated-gelu", "num_layers": 3, "num_decoder_layers": 1}),
    "ul2": ("T5", {**APART, "feed_forward_proj": "gated-silu"}),
    "plain gelu": ("T5", {"feed_forward_proj": "gelu", "relative_attention_num_buckets": 7}),
    "few buckets": ("T5", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}),
    "mt5": ("MT5", {**APART}),
    "mt5 tied": ("MT5", {"feed_forward_proj": "relu", "tied": True}),
}
LENGTHS = torch.tensor([150, 4, 90])


def theirs(name: str) -> transformers.PreTrainedModel:
    """transformers' model of a tiny config, with large weights so that every term counts."""
    family, extra = CONFIGS[name]
    tied = extra.get("tied", extra.get("tie_word_embeddings", True))
    config = getattr(transformers, f"{family}Config")(**SIZES | {k: v for k, v in extra.items() if k != "tied"})
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    generator = torch.Generator().manual_seed(7)
    for weight in model.parameters():
        weight.normal_(*((1.0, 0.3) if weight.dim() == 1 else (0.0, 0.25)), generator=generator)
    return model


@pytest.fixture(scope="module", autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory) -> SimpleNamespace:
    """transformers' model, and ours as it is read from transformers' files."""
    folder = tmp_path_factory.mktemp("t5")
    reference = theirs(request.param)
    reference.save_pretrained(folder)
    return SimpleNamespace(theirs=reference, ours=load_model(folder), name=request.param)


def ids(rows: int, length: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def asked(model, source, lengths, written):
    mask = (torch.arange(source.shape[1]) < lengths[:, None]).long()
    return model(source, mask, decoder_input_ids=written, output_hidden_states=True)


def test_logits_and_hidden_states_are_transformers(pair):
    source, written = ids(3, 150), ids(3, 140, seed=4)
    wanted = asked(pair.theirs, source, LENGTHS, written)
    assert wanted.logits.std() > 0.1
    torch.testing.assert_close(pair.ours(source, written, LENGTHS), wanted.logits, atol=1e-4, rtol=0)
    read = pair.ours.read(source, LENGTHS)
    kept = torch.arange(150) < LENGTHS[:, None]
    torch.testing.assert_close(read[kept], wanted.encoder_last_hidden_state[kept], atol=1e-4, rtol=0)
    hidden = pair.ours.hidden(written, pair.ours.encode(source, LENGTHS))
    torch.testing.assert_close(hidden, wanted.decoder_hidden_states[-1], atol=1e-4, rtol=0)


def test_transformers_reads_what_we_write(pair, tmp_path):
    save_model(pair.ours, tmp_path)
    again, told = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(pair.theirs)
    assert not any(told.values()), told
    source, written = ids(3, 150), ids(3, 12, seed=4)
    wanted = asked(again, source, LENGTHS, written).logits
    torch.testing.assert_close(pair.ours(source, written, LENGTHS), wanted, atol=1e-4, rtol=0)
    assert load_model(tmp_path).config == pair.ours.config


def test_writing_in_pieces_is_writing_at_once(pair):
    source, written = ids(3, 150), ids(3, 30, seed=4)
    cache = pair.ours.encode(source, LENGTHS, room=2)  # too little: it must grow
    pieces = [pair.ours.head(pair.ours.hidden(part, cache)) for part in written.split([11, 6, *[1] * 13], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), pair.ours(source, written, LENGTHS), atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [30, 30, 30]


def test_rows_of_unlike_length_are_as_if_alone(pair):
    model, source, written = pair.ours, ids(3, 150), ids(3, 30, seed=4)
    alone = [model(source[i : i + 1, : LENGTHS[i]], written[i : i + 1])[0] for i in range(3)]
    cache, lengths = model.encode(source, LENGTHS), torch.tensor([2, 9, 5])
    first = model.head(model.hidden(written[:, :9], cache, lengths))
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(first[row, :length], alone[row][:length], atol=1e-4, rtol=0)
    order = [2, 0, 2]
    cache.keep(torch.tensor(order))
    for _ in range(4):
        at = cache.lengths.tolist()
        step = torch.stack([written[row, i] for row, i in zip(order, at, strict=True)])[:, None]
        got = model.head(model.hidden(step, cache))[:, 0]
        wanted = torch.stack([alone[row][i] for row, i in zip(order, at, strict=True)])
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_greedy_writing_is_transformers(pair):
    rows = [row[:n].tolist() for row, n in zip(ids(4, 40, seed=8), (3, 40, 17, 1), strict=True)]
    source, lengths = padded(rows, torch.device("cpu"))
    mask = (torch.arange(40) < lengths[:, None]).long()
    pair.theirs.generation_config.update(eos_token_id=None)
    # their cache has as many layers as the encoder, and a deeper decoder runs out of it
    told = {"max_new_tokens": 20, "do_sample": False, "use_cache": False}
    wanted = pair.theirs.generate(source, attention_mask=mask, **told)[:, 1:]
    cache = pair.ours.encode(source, lengths)
    written = itertools.islice(steps(pair.ours, [[0]] * 4, cache, greedy([[0]] * 4)), 20)
    assert torch.tensor([[move.written[0].token for move in moves] for moves in written]).T.tolist() == wanted.tolist()


def test_the_counts_are_those_counted(pair):
    model, config = pair.ours, pair.ours.config
    assert config.parameters == parameters(model) == sum(p.numel() for p in pair.theirs.parameters())
    for length, source in ((7, 5), (1, 12)):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which is counted
            model(ids(1, source), ids(1, length))
        assert config.flops(length, source) == counter.get_total_flops()


def test_weights_in_8_bits_say_nearly_the_same(pair, tmp_path):
    source, written = ids(2, 9), ids(2, 11, seed=4)
    model = T5(pair.ours.config).eval()
    exact = model(source, written)
    quantised = quantize_int8(copy.deepcopy(model))
    said = quantised(source, written)
    assert 0 < (said - exact).pow(2).mean().sqrt() / exact.std() < 0.05
    assert bytes_of(quantised) < 0.4 * bytes_of(model)
    assert parameters(quantised) == parameters(model)
    save_model(quantised, tmp_path)
    torch.testing.assert_close(load_model(tmp_path)(source, written), said, atol=0, rtol=0)


def test_all_logits_are_scaled_by_the_last_norm(pair):
    model, source, written = copy.deepcopy(pair.ours), ids(2, 9), ids(2, 11, seed=4)
    before = model(source, written)
    model.scale_logits(0.25)
    torch.testing.assert_close(model(source, written), 0.25 * before, atol=1e-5, rtol=1e-4)


# -- one model is enough


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("count", "reach"), [(32, 128), (8, 12), (7, 9), (4, 3), (64, 1000)])
def test_buckets_are_transformers(both, count, reach):
    behind = torch.arange(-2100, 2101)
    wanted = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket(-behind, both, count, reach)
    assert torch.equal(buckets(behind, count, reach, both), wanted)


def small(**changes) -> T5Config:
    return T5Config(**{**SIZES, **changes})


def test_names_of_older_files_are_read(tmp_path):
    model = T5(small()).eval()
    save_model(model, tmp_path)
    file = tmp_path / "model.safetensors"
    written = load_file(file)
    table, bias = written.pop("shared.weight"), torch.ones(32, 4)
    old = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": bias}
    source, target = ids(2, 5), ids(2, 4)
    for names in (["encoder.embed_tokens"], ["lm_head"], ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]):
        save_file({**written, **old, **{f"{name}.weight": table.clone() for name in names}}, file)
        torch.testing.assert_close(load_model(tmp_path)(source, target), model(source, target), atol=0, rtol=0)
    save_file({**written, "shared.weight": table, "encoder.embed_tokens.weight": 2 * table}, file)
    with pytest.raises(InputError, match=r"'encoder.embed_tokens.weight' differs from 'shared.weight'"):
        load_model(tmp_path)
    save_file(written, file)
    with pytest.raises(InputError, match=r"'decoder.embed_tokens.weight' is missing \(and 3 more\)"):
        load_model(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, "tie_word_embeddings": False}))
    save_file({**written, "lm_head.weight": table}, file)
    with pytest.raises(InputError, match="is missing"):
        load_model(tmp_path)


def test_what_files_of_old_and_new_say_of_the_head_is_understood():
    raw = {**SIZES, "model_type": "t5"}
    assert T5Config.from_hf(raw).scale_decoder_outputs
    assert not T5Config.from_hf({**raw, "tie_word_embeddings": False}).scale_decoder_outputs
    new = T5Config.from_hf({**raw, "tie_word_embeddings": True, "scale_decoder_outputs": False})
    assert new.tie_word_embeddings
    assert not new.scale_decoder_outputs
    for tied in (True, False):
        config = T5Config.from_hf({**raw, "model_type": "mt5", "tie_word_embeddings": tied})
        assert not config.scale_decoder_outputs
        assert (config.gated, config.activation) == (True, "gelu_new")
        assert "scale_decoder_outputs" not in config.to_hf()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("feed_forward_proj", "gated-mish", "feed_forward_proj = 'gated-mish' is not implemented"),
        ("feed_forward_proj", "gated", "feed_forward_proj = 'gated'"),
        ("dense_act_fn", "silu", "dense_act_fn = 'silu', and feed_forward_proj = 'relu' means 'relu'"),
        ("is_gated_act", True, "is_gated_act = True, and feed_forward_proj = 'relu' means False"),
        ("is_encoder_decoder", False, "is_encoder_decoder = False is not implemented"),
        ("is_decoder", True, "is_decoder = True is not implemented"),
        ("relative_attention_num_buckets", 3, "relative_attention_num_buckets = 3"),
        ("relative_attention_max_distance", 16, "relative_attention_max_distance = 16"),
        ("decoder_start_token_id", VOCAB, "decoder_start_token_id = 61"),
        ("dropout_rate", 1.0, "dropout_rate = 1.0"),
        ("d_kv", 2**23, "inner = "),
        ("num_layers", 0, "num_layers = 0"),
        ("num_decoder_layers", -1, "num_decoder_layers = -1"),
        ("relative_attention_max_distanc", 3, "did you mean 'relative_attention_max_distance'"),
        ("encoder_layers", 3, "'encoder_layers' is not known"),
        ("model_type", "umt5", "model_type = 'umt5'"),
    ],
)
def test_what_would_change_the_answers_is_refused_by_name(key, value, why):
    with pytest.raises(InputError, match=why):
        T5Config.from_hf({**SIZES, key: value})


def test_the_source_is_read_once_and_what_is_written_cannot_change_it():
    model = T5(small()).eval()
    cache = model.encode(ids(2, 6), torch.tensor([6, 2]))
    assert isinstance(cache, CrossCache)
    before = [(k.clone(), v.clone()) for k, v in cache.memory]
    model.hidden(ids(2, 4), cache)
    for (k, v), (old_k, old_v) in zip(cache.memory, before, strict=True):
        assert torch.equal(k, old_k)
        assert torch.equal(v, old_v)


def test_weights_start_as_the_papers_did():
    config = small(d_model=256, d_kv=32, d_ff=500, num_heads=4, vocab_size=800, num_layers=2, initializer_factor=0.5)
    for tied in (True, False):
        model = T5(small(**{**{k: getattr(config, k) for k in vars(config)}, "tie_word_embeddings": tied}))
        first = model.decoder.block[0]
        attention, cross, dense = (
            first.layer[0].SelfAttention,
            first.layer[1].EncDecAttention,
            first.layer[2].DenseReluDense,
        )
        wanted = {model.shared: 1.0, attention.q: (256 * 32) ** -0.5, attention.k: 256**-0.5, cross.v: 256**-0.5}
        wanted |= {cross.o: 128**-0.5, dense.wi: 256**-0.5, dense.wo: 500**-0.5}
        wanted |= {attention.relative_attention_bias: 256**-0.5} | ({} if tied else {model.lm_head: 256**-0.5})
        for module, deviation in wanted.items():
            rough = 0.2 if module.weight.numel() < 1000 else 0.03
            assert module.weight.std().item() == pytest.approx(0.5 * deviation, rel=rough)
        assert torch.equal(first.layer[0].layer_norm.weight, torch.ones(256))
        assert model(ids(2, 9), ids(2, 9)).std() < 3
    assert torch.equal(T5(config).shared.weight, T5(config).shared.weight)


def test_dropout_acts_in_training_only():
    model, source, written = T5(small(dropout_rate=0.3)).train(), ids(2, 9), ids(2, 9)
    assert not torch.equal(model(source, written), model(source, written))
    model.eval()
    assert torch.equal(model(source, written), model(source, written))
    still = T5(small(dropout_rate=0.0)).train()
    assert torch.equal(still(source, written), still.eval()(source, written))


def test_all_weights_learn():
    with torch.enable_grad():
        model = T5(small(**APART, feed_forward_proj="gated-gelu")).train()
        model(ids(2, 9), ids(2, 9), torch.tensor([9, 4])).logsumexp(-1).sum().backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()} == set()


@pytest.mark.parametrize("depth", [1, 3])
def test_one_dial_sets_the_size(depth):
    config = T5Config.sized(depth, 500, 64, eos_token_id=1)
    assert (config.num_layers, config.num_decoder_layers, config.num_heads, config.d_kv) == (depth, depth, depth, 32)
    assert (config.d_model, config.vocab_size, config.context) == (32 * depth, 500, 128)
    assert T5Config.from_hf(config.to_hf()) == config
    assert T5(config)(ids(1, 5), ids(1, 5)).shape == (1, 5, 500)


def test_bfloat16_is_as_near_as_transformers():
    reference = theirs("v1.1")
    model = T5(T5Config.from_hf({**reference.config.to_dict(), "tie_word_embeddings": False}))
    model.load_state_dict(reference.state_dict())
    source, written = ids(2, 20), ids(2, 20, seed=4)
    exact = model.eval()(source, written)
    known = (reference.bfloat16()(source, decoder_input_ids=written).logits - exact).abs().mean()
    assert (model.bfloat16()(source, written) - exact).abs().mean() < 1.2 * known
    assert model.encode(source).keys[0].dtype == torch.bfloat16
