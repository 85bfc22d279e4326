"""The dial: what a size names, in every family there is, and whether the families count themselves rightly."""

import inspect

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qualm import registry
from qualm.errors import UsageError
from qualm.models.base import Causal, Decoder, EncoderDecoder
from qualm.models.store import model_class, parameters
from qualm.training.size import DEPTHS, build, config_of, depth_of, vocab_of

FAMILIES = registry.names("models")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dial_is_part_of_every_family(family):
    config = registry.find("models", family).config_class
    assert not inspect.isabstract(config)
    assert list(inspect.signature(config.sized).parameters)[:3] == ["depth", "vocab", "length"]


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_counts_the_weights_of_its_model(family, depth):
    config = config_of(family, depth, length=64, eos_token_id=3)
    assert config.eos_token_id == 3
    assert config.context >= 64
    assert config.vocab_size == vocab_of(depth)
    assert parameters(model_class(config.model_type)(config)) == config.parameters


@pytest.mark.parametrize("size", [1e6, 10e6, 124e6])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_number_gives_the_depth_whose_count_is_nearest(family, size):
    depth = depth_of(int(size), family)
    below, found, above = (config_of(family, max(1, depth + d)).parameters for d in (-1, 0, 1))
    assert abs(found - size) <= min(abs(below - size), abs(above - size))
    assert 0.5 < found / size < 1.7
    assert depth_of(found, family) == depth


@pytest.mark.parametrize("family", FAMILIES)
def test_more_depth_is_more_weights_and_more_work(family):
    configs = [config_of(family, depth, 512) for depth in range(1, 17)]
    counts, works = ([c.parameters for c in configs], [c.flops(64, 64) for c in configs])
    assert counts == sorted(set(counts))
    assert works == sorted(set(works))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_work_of_a_forward_pass_is_what_torch_counts(family):
    """On a CPU torch's counter sees nothing of fused attention and fused recurrence: both are taken apart for it."""
    model, ids, source = build(family, 2, 96, 32).eval(), torch.arange(24)[None], torch.arange(16)[None]
    apart = torch.backends.mkldnn.flags(enabled=False)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), apart, torch.no_grad():
        model(source, ids) if isinstance(model, EncoderDecoder) else model(ids)
    assert model.config.flops(24, 16) == counter.get_total_flops()


@pytest.mark.parametrize(("size", "layers", "width"), [("tiny", 4, 128), ("small", 8, 256), ("medium", 12, 384)])
@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_sizes_by_name(family, size, layers, width):
    config = config_of(family, depth_of(size, family), length=128)
    assert (config.layers, config.hidden_size, config.num_attention_heads) == (layers, width, layers)
    assert config.vocab_size == 512 * layers
    assert config.context == (256 if family == "llama" else 128)
    assert config.initializer_range == width**-0.5
    assert config.tie_word_embeddings


def test_the_counts_that_the_help_names():
    counts = [round(config_of("llama", depth).parameters / 1e6, 1) for depth in DEPTHS.values()]
    assert counts == [1.3, 9.4, 30.7, 71.3]


def test_a_vocabulary_that_is_given_counts():
    assert depth_of(30_000_000, vocab=50_000) < depth_of(30_000_000)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides_the_weights(family):
    first, same, other = (build(family, 1, 40, 8, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_model_starts_near_the_uniform_guess(family):
    kind = registry.find("models", family)
    if not issubclass(kind, Causal):
        pytest.skip("says nothing of a next token")
    model, ids = build(family, 2, 64, 16).eval(), torch.arange(16)[None]
    with torch.no_grad():
        logits = model(ids) if issubclass(kind, Decoder) else model(ids, ids)
    assert logits.std() < 3
    assert logits.isfinite().all()


@pytest.mark.parametrize(("size", "named"), [("tinny", "did you mean 'tiny'"), ("huge!", "say tiny"), (0, "cannot be")])
def test_a_size_that_is_none_is_refused(size, named):
    with pytest.raises(UsageError, match=named):
        depth_of(size)


def test_a_family_that_is_none_is_refused():
    with pytest.raises(UsageError, match="did you mean 'llama'"):
        depth_of(10**6, "lama")
