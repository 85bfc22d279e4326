"""Marian with a recurrent decoder: what its equations say, one step at a time or all at once."""

import copy
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qualm.models.layers import quantize_int8
from qualm.models.ssru import Ssru, SsruConfig
from qualm.models.store import load_model, parameters, save_model, weights_hash

CONFIG = SsruConfig(
    vocab_size=61,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=2,
    encoder_ffn_dim=48,
    decoder_ffn_dim=40,
    activation_function="relu",
    scale_embedding=True,
    pad_token_id=60,
    decoder_start_token_id=60,
)
LENGTHS = torch.tensor([9, 4, 6])


@pytest.fixture(scope="module", autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> Ssru:
    """With large weights so that every term counts."""
    made = Ssru(CONFIG).eval()
    generator = torch.Generator().manual_seed(7)
    for name, weight in made.named_parameters():
        weight.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    return made


def ids(rows: int, length: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(1, 60, (rows, length), generator=torch.Generator().manual_seed(seed))


def by_hand(model: Ssru, source: list[int], written: list[int]) -> torch.Tensor:
    """Logits (T, V), in float64 and one word at a time, from the equations alone."""
    w = {name: weight.double() for name, weight in model.state_dict().items()}
    width, heads = CONFIG.d_model, {"encoder": CONFIG.encoder_attention_heads, "decoder": 2}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return centred / centred.pow(2).mean(-1, keepdim=True).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def place(at):
        rates = [10000 ** (-i / (width / 2 - 1)) for i in range(width // 2)]
        return torch.tensor([math.sin(at * r) for r in rates] + [math.cos(at * r) for r in rates]).double()

    def attention(x, over, name):
        parts, count = [], heads["encoder" if ".encoder." in name else "decoder"]
        for head in range(count):
            part = slice(head * width // count, (head + 1) * width // count)
            q, k, v = (linear(a, f"{name}.{n}_proj")[..., part] for a, n in ((x, "q"), (over, "k"), (over, "v")))
            parts.append((q @ k.T / math.sqrt(width / count)).softmax(-1) @ v)
        return linear(torch.cat(parts, -1), f"{name}.out_proj")

    def feed_forward(x, name):
        return norm(x + linear(linear(x, f"{name}.fc1").relu(), f"{name}.fc2"), f"{name}.final_layer_norm")

    table = w["model.shared.weight"] * math.sqrt(width)
    x = torch.stack([table[i] + place(at) for at, i in enumerate(source)])
    for i in range(CONFIG.encoder_layers):
        name = f"model.encoder.layers.{i}"
        x = norm(x + attention(x, x, f"{name}.self_attn"), f"{name}.self_attn_layer_norm")
        x = feed_forward(x, name)
    logits, states = [], [torch.zeros(width).double()] * CONFIG.decoder_layers
    for at, word in enumerate(written):
        y = table[word] + place(at)
        for i in range(CONFIG.decoder_layers):
            name = f"model.decoder.layers.{i}"
            f = linear(y, f"{name}.ssru.forget_gate").sigmoid()
            states[i] = f * states[i] + (1 - f) * linear(y, f"{name}.ssru.candidate")
            y = norm(y + states[i].relu(), f"{name}.ssru_layer_norm")
            y = norm(y + attention(y[None], x, f"{name}.encoder_attn")[0], f"{name}.encoder_attn_layer_norm")
            y = feed_forward(y, name)
        logits.append(y @ w["model.shared.weight"].T + w["final_logits_bias"][0])
    return torch.stack(logits)


def test_logits_are_those_of_the_equations(model):
    source, written = ids(2, 9), ids(2, 7, seed=4)
    got = model(source, written)
    for row in range(2):
        wanted = by_hand(model, source[row].tolist(), written[row].tolist()).float()
        torch.testing.assert_close(got[row], wanted, atol=1e-4, rtol=0)


def test_writing_step_by_step_is_writing_at_once(model):
    source, written = ids(3, 9), ids(3, 11, seed=4)
    whole = model(source, written, LENGTHS)
    cache = model.encode(source, LENGTHS)
    pieces = [model.head(model.hidden(part, cache)) for part in written.split([4, 1, 1, 5], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == [11, 11, 11]


def test_padding_leaves_the_state_as_it_is(model):
    source, written, lengths = ids(3, 9), ids(3, 11, seed=4), torch.tensor([2, 5, 3])
    cache = model.encode(source, LENGTHS)
    model.hidden(written[:, :5], cache, lengths)
    cache.keep(torch.tensor([2, 0, 2]))
    rows = [2, 0, 2]
    step = torch.stack([written[row, lengths[row]] for row in rows])[:, None]
    got = model.head(model.hidden(step, cache))[:, 0]
    for i, row in enumerate(rows):
        alone = model(source[row : row + 1, : LENGTHS[row]], written[row : row + 1, : lengths[row] + 1])
        torch.testing.assert_close(got[i], alone[0, -1], atol=1e-5, rtol=0)


def test_what_is_kept_does_not_grow_with_what_is_written(model):
    cache = model.encode(ids(2, 5))
    model.hidden(ids(2, 40), cache)
    assert [tuple(state.shape) for state in cache.states] == [(2, 32)] * 2


def test_a_folder_gives_the_model_back(model, tmp_path):
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, Ssru)
    assert weights_hash(again) == weights_hash(model)
    assert torch.equal(again(ids(1, 5), ids(1, 4)), model(ids(1, 5), ids(1, 4)))


def test_counters_agree_with_what_is_counted(model):
    assert CONFIG.parameters == parameters(model)
    for length, source in ((7, 5), (1, 12)):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which is counted
            model(ids(1, source), ids(1, length))
        assert CONFIG.flops(length, source) == counter.get_total_flops()


def test_weights_in_8_bits_say_nearly_the_same(model):
    source, written = ids(2, 9), ids(2, 11, seed=4)
    exact = model(source, written)
    error = (quantize_int8(copy.deepcopy(model))(source, written) - exact).pow(2).mean().sqrt() / exact.std()
    assert 0 < error < 0.1


def test_one_dial_gives_a_model_that_learns_with_every_weight():
    config = SsruConfig.sized(3, 300, 32, eos_token_id=1, pad_token_id=2)
    assert (config.encoder_layers, config.decoder_layers) == (3, 1)
    model = Ssru(config)
    assert parameters(model) == config.parameters
    with torch.enable_grad():
        logits = model(ids(2, 12), ids(2, 12))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 12, seed=5).flatten()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        if not name.endswith("k_proj.bias"):  # adds the same to all scores of a query
            assert weight.grad.any(), name
