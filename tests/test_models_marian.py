"""Marian computes what transformers computes, written and read both ways."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qualm.errors import InputError
from qualm.lm.base import Sampling
from qualm.lm.load import load_base
from qualm.models.layers import quantize_int8
from qualm.models.marian import Marian, MarianConfig
from qualm.models.store import bytes_of, load_model, parameters, save_model, weights_hash
from test_tokens_spm import written_spm

SIZES = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 50,
    "decoder_start_token_id": 50,
}
APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 53}
CONFIGS = {
    "shared": {"scale_embedding": True, "activation_function": "swish"},
    "relu": {"activation_function": "relu", "encoder_attention_heads": 2, "decoder_attention_heads": 8},
    "apart": {**APART, "scale_embedding": True},
    "untied": {**APART, "tie_word_embeddings": False},
}
LENGTHS = torch.tensor([9, 4, 6])


def theirs(name: str) -> transformers.MarianMTModel:
    """transformers' model of a tiny config, with large weights so that every term counts."""
    model = transformers.MarianMTModel(transformers.MarianConfig(**{**SIZES, **CONFIGS[name]})).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "embed_positions" not in key:
                wide = 0.4 if "layers" in key and weight.dim() == 2 else 0.2
                weight.normal_(1.0 if key.endswith("norm.weight") else 0.0, wide, generator=generator)
        model.final_logits_bias.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture(scope="module", autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory) -> SimpleNamespace:
    """transformers' model, and ours as it is read from transformers' files."""
    folder = tmp_path_factory.mktemp("marian")
    reference = theirs(request.param)
    reference.save_pretrained(folder)
    return SimpleNamespace(theirs=reference, ours=load_model(folder), name=request.param)


def ids(rows: int, length: int, most: int = 50, seed: int = 3) -> torch.Tensor:
    return torch.randint(1, most, (rows, length), generator=torch.Generator().manual_seed(seed))


def read_by_theirs(model, source, lengths, written):
    mask = (torch.arange(source.shape[1]) < lengths[:, None]).long()
    return model(source, mask, decoder_input_ids=written, output_hidden_states=True)


def test_logits_and_hidden_states_are_transformers(pair):
    source, written = ids(3, 9), ids(3, 11, seed=4)
    wanted = read_by_theirs(pair.theirs, source, LENGTHS, written)
    torch.testing.assert_close(pair.ours(source, written, LENGTHS), wanted.logits, atol=1e-4, rtol=0)
    cache = pair.ours.encode(source, LENGTHS)
    hidden = pair.ours.hidden(written, cache)
    torch.testing.assert_close(hidden, wanted.decoder_hidden_states[-1], atol=1e-4, rtol=0)
    read = pair.ours.read(source, cache.memory_mask)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(
            read[row, :length], wanted.encoder_last_hidden_state[row, :length], atol=1e-4, rtol=0
        )


def test_transformers_reads_what_we_write(pair, tmp_path):
    save_model(pair.ours, tmp_path)
    again, told = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, transformers.MarianMTModel)
    assert not any(told.values()), told
    source, written = ids(3, 9), ids(3, 11, seed=4)
    wanted = read_by_theirs(again, source, LENGTHS, written).logits
    torch.testing.assert_close(pair.ours(source, written, LENGTHS), wanted, atol=1e-4, rtol=0)
    assert load_model(tmp_path).config == pair.ours.config


def test_writing_step_by_step_is_writing_at_once(pair):
    source, written = ids(3, 9), ids(3, 11, seed=4)
    whole = pair.ours(source, written, LENGTHS)
    cache = pair.ours.encode(source, LENGTHS, room=2)  # too little: it must grow
    pieces = [pair.ours.head(pair.ours.hidden(part, cache)) for part in written.split([4, 1, 1, 5], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-4, rtol=0)
    assert cache.lengths.tolist() == [11, 11, 11]


def test_a_batch_is_its_rows_each_alone(pair):
    source, written, lengths = ids(3, 9), ids(3, 11, seed=4), torch.tensor([2, 5, 3])
    cache = pair.ours.encode(source, LENGTHS)
    pair.ours.hidden(written[:, :5], cache, lengths)
    cache.keep(torch.tensor([2, 0, 2]))
    rows = [2, 0, 2]
    step = torch.stack([written[row, lengths[row]] for row in rows])[:, None]
    got = pair.ours.head(pair.ours.hidden(step, cache))[:, 0]
    for i, row in enumerate(rows):
        alone = pair.ours(source[row : row + 1, : LENGTHS[row]], written[row : row + 1, : lengths[row] + 1])
        torch.testing.assert_close(got[i], alone[0, -1], atol=1e-4, rtol=0)


def test_greedy_writing_is_transformers(pair):
    source, pad, eos = ids(3, 9), SIZES["pad_token_id"], 0
    mask = (torch.arange(9) < LENGTHS[:, None]).long()
    ours, reference = copy.deepcopy(pair.ours), copy.deepcopy(pair.theirs)
    for model in (ours, reference):
        model.final_logits_bias[:, pad] += 20  # what is wished for most, and never written
    settings = {"bad_words_ids": [[pad]], "no_repeat_ngram_size": 1, "forced_eos_token_id": None, "eos_token_id": eos}
    wanted = reference.generate(source, attention_mask=mask, max_new_tokens=20, do_sample=False, **settings)
    cache, written = ours.encode(source, LENGTHS), torch.full((3, 1), pad)
    for _ in range(wanted.shape[1] - 1):
        logits = ours.head(ours.hidden(written[:, -1:], cache)[:, -1])
        assert set(logits.argmax(-1).tolist()) == {pad}
        logits[:, ours.never] = -torch.inf
        logits.scatter_(1, written, -torch.inf)  # nothing twice, so that many tokens are compared
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], 1)
    for mine, its in zip(written.tolist(), wanted.tolist(), strict=True):
        end = its.index(eos) + 1 if eos in its else len(its)
        assert mine[:end] == its[:end]
    assert wanted.unique().numel() > 12


def test_a_folder_as_opus_mt_has_it_translates_as_transformers_does(tmp_path):
    pieces = [("</s>", 0.0, 3), ("<unk>", 0.0, 2), *((c, -2.0 - i / 9, 1) for i, c in enumerate("▁abcdefghijklmnop"))]
    (tmp_path / "source.spm").write_bytes(written_spm(pieces))
    names = [piece for piece, _, _ in pieces]
    names += [f"▁{n}" for n in range(SIZES["pad_token_id"] - len(names))] + ["<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    reference = theirs("shared")
    reference.final_logits_bias[:, SIZES["pad_token_id"]] += 20
    reference.save_pretrained(tmp_path)
    lm = load_base(tmp_path)
    texts = ["abba", "a headed cab", "kind of a nap"]
    lm.save(tmp_path / "again")
    settings = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert settings["bad_words_ids"] == [[SIZES["pad_token_id"]]]
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    for text, done in zip(texts, lm.generate(texts, Sampling(max_tokens=8)), strict=True):
        read = lm.tokens.encode_source(text)
        assert read == [*(names.index(c) for c in ("▁" + text).replace(" ", "▁")), 0]
        wanted = again.generate(torch.tensor([read]), max_new_tokens=8, do_sample=False)[0, 1:]
        assert done.text == lm.tokens.decode(wanted.tolist())
        assert done.finish == ("stop" if 0 in wanted else "length")


def test_the_cross_attention_reads_the_source_once(pair, monkeypatch):
    cache = pair.ours.encode(ids(2, 5))
    monkeypatch.setattr(type(pair.ours), "read", None)
    monkeypatch.setattr(pair.ours.model.decoder.layers[0].encoder_attn.k_proj, "forward", None)
    pair.ours.hidden(ids(2, 3), cache)


def test_counters_agree_with_what_is_counted(pair):
    model, config = pair.ours, pair.ours.config
    assert config.parameters == parameters(model)
    for length, source in ((7, 5), (1, 12)):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which is counted
            model(ids(1, source), ids(1, length))
        assert config.flops(length, source) == counter.get_total_flops()


def test_weights_in_8_bits_say_nearly_the_same(pair):
    source, written = ids(2, 9), ids(2, 11, seed=4)
    exact = pair.ours(source, written)
    quantised = quantize_int8(copy.deepcopy(pair.ours))
    error = (quantised(source, written) - exact).pow(2).mean().sqrt() / exact.std()
    assert 0 < error < 0.15
    assert bytes_of(quantised) < 0.4 * bytes_of(pair.ours)
    assert parameters(quantised) == parameters(pair.ours)


def test_scaled_logits_are_the_logits_times_the_factor(pair):
    model, source, written = copy.deepcopy(pair.ours), ids(2, 9), ids(2, 11, seed=4)
    before = model(source, written)
    bias = model.final_logits_bias
    model.scale_logits(0.5)
    torch.testing.assert_close(model(source, written), before * 0.5, atol=1e-5, rtol=1e-5)
    assert torch.equal(bias, pair.ours.final_logits_bias)  # a copy that shares it is left alone


@pytest.mark.parametrize("depth", [1, 3])
def test_one_dial_gives_a_model_that_learns_with_every_weight(depth):
    config = MarianConfig.sized(depth, 300, 32, eos_token_id=1, pad_token_id=2)
    assert (config.d_model, config.decoder_start_token_id) == (32 * depth, 2)
    model = Marian(config)
    assert parameters(model) == config.parameters
    with torch.enable_grad():
        logits = model(ids(2, 12), ids(2, 12))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 12, seed=5).flatten()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        if not name.endswith("k_proj.bias"):  # adds the same to all scores of a query
            assert weight.grad.any(), name


def test_weights_start_as_marian_starts_them():
    model = Marian(MarianConfig.sized(2, 300, 32, eos_token_id=0))
    assert model.model.shared.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    wide = model.model.encoder.layers[0].fc1.weight
    assert wide.abs().max().item() == pytest.approx((6 / (64 + 256)) ** 0.5, rel=0.01)
    assert wide.std().item() == pytest.approx((2 / (64 + 256)) ** 0.5, rel=0.05)
    assert not model.final_logits_bias.any()
    other = Marian(model.config)
    other.init_weights(1)
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("which", ["dropout", "attention_dropout", "activation_dropout"])
def test_dropout_acts_in_training_only(which):
    config = replace(MarianConfig.sized(1, 300, 32), **{"dropout": 0.0, which: 0.3})
    model, source, written = Marian(config), ids(2, 9), ids(2, 5)
    assert not torch.equal(model.train()(source, written), model(source, written))
    assert torch.equal(model.eval()(source, written), model(source, written))


def test_the_pad_is_never_written_unless_it_ends_the_text():
    assert Marian(MarianConfig(**{**SIZES, "eos_token_id": 3})).never == (50,)
    assert Marian(MarianConfig(**{**SIZES, "eos_token_id": (0, 50)})).never == ()


def test_what_is_never_written_is_part_of_what_a_model_is():
    one, other = (Marian(MarianConfig(**{**SIZES, "pad_token_id": pad})) for pad in (50, 49))
    for model in (one, other):
        model.init_weights(0)
    assert one.never != other.never
    assert weights_hash(one) != weights_hash(other)


def test_a_published_config_is_read():
    published = {
        "activation_dropout": 0.0,
        "activation_function": "swish",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "architectures": ["MarianMTModel"],
        "attention_dropout": 0.0,
        "bad_words_ids": [[58100]],
        "bos_token_id": 0,
        "classif_dropout": 0.0,
        "d_model": 512,
        "decoder_attention_heads": 8,
        "decoder_ffn_dim": 2048,
        "decoder_layerdrop": 0.0,
        "decoder_layers": 6,
        "decoder_start_token_id": 58100,
        "decoder_vocab_size": 58101,
        "dropout": 0.1,
        "encoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "encoder_layerdrop": 0.0,
        "encoder_layers": 6,
        "eos_token_id": 0,
        "extra_pos_embeddings": 58101,
        "forced_eos_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "label2id": {"LABEL_0": 0},
        "max_length": 512,
        "max_position_embeddings": 512,
        "model_type": "marian",
        "normalize_before": False,
        "normalize_embedding": False,
        "num_beams": 6,
        "num_hidden_layers": 6,
        "pad_token_id": 58100,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
        "transformers_version": "4.22.0.dev0",
        "use_cache": True,
        "vocab_size": 58101,
    }
    positions = 2 * 512 * 512  # tables of sines, which transformers counts, as it does not the bias of the logits
    assert MarianConfig.from_hf(published).parameters == 74_410_496 - positions + 58_101


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"d_model": 30}, "multiple of encoder_attention_heads"),
        ({"d_model": 5, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, "odd"),
        ({"activation_function": "tanh"}, "activation_function"),
        ({"normalize_before": True}, "normalize_before"),
        ({"static_position_embeddings": False}, "static_position_embeddings"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"decoder_vocab_size": 60}, "share_encoder_decoder_embeddings"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"pad_token_id": 61}, "pad_token_id = 61"),
        ({"decoder_layers": 0}, "decoder_layers"),
        ({"attention_dropout": 1.0}, "attention_dropout = 1.0"),
        ({"scale_embeddings": True}, "did you mean 'scale_embedding'"),
    ],
)
def test_a_config_that_would_give_wrong_answers_is_refused(change, word):
    with pytest.raises(InputError, match=word) as caught:
        MarianConfig.from_hf({**SIZES, **change}, "there/config.json")
    assert caught.value.where == "there/config.json"
