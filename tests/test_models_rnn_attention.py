"""An LSTM with attention: torch's numbers, sources as if alone, and every use of an encoder-decoder."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qualm.errors import InputError
from qualm.lm.base import Sampling
from qualm.lm.load import load_base
from qualm.lm.seq2seq import Seq2SeqLM
from qualm.mends.quantize import Quantize
from qualm.mends.temper import Temper
from qualm.models.layers import quantize_int8
from qualm.models.rnn_attention import RnnAttention, RnnAttentionConfig
from qualm.models.store import load_model, parameters, save_model
from tiny import TEXTS, tiny_tokens

VOCAB = 41
KINDS = {
    "plain": {},
    "deep": {"num_hidden_layers": 3, "embedding_size": 12},
    "untied": {"num_hidden_layers": 2, "embedding_size": 12, "tie_word_embeddings": False, "head_bias": True},
}
SOURCES = [*TEXTS, "The", "今天", "😀", "a " * 30, "x"]


def made(kind: str = "deep", **extra) -> RnnAttention:
    """A model whose weights are wide, so that every term counts."""
    settings = {"vocab_size": VOCAB, "hidden_size": 16, "decoder_start_token_id": 2, **KINDS[kind], **extra}
    model = RnnAttention(RnnAttentionConfig(**settings))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.5, generator=generator)
    return model.eval()


def same(a: Tensor, b: Tensor) -> None:
    """But for the last digit: weights that a file gave lie elsewhere in memory, and sums run in another order."""
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def some_ids(*shape: int, seed: int = 3) -> Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def written(kind: str = "deep") -> Seq2SeqLM:
    tokens = tiny_tokens()
    return Seq2SeqLM(made(kind, vocab_size=tokens.vocab_size, eos_token_id=0), tokens, name="tiny")


def by_torch(model: RnnAttention, source: Tensor, ids: Tensor) -> Tensor:
    """Logits of one text by torch's own layers, as the paper has it, with nothing batched or worked out before."""
    c = model.config
    encoder = nn.LSTM(c.embedding_size, c.hidden_size // 2, c.layers, batch_first=True, bidirectional=True)
    decoder = nn.LSTM(2 * c.embedding_size, c.hidden_size, c.layers, batch_first=True)
    encoder.load_state_dict(model.encoder.state_dict())
    decoder.load_state_dict(model.decoder.state_dict())
    memory, last = encoder(model.embed_tokens(source))
    state = tuple(torch.cat((s[0::2], s[1::2]), -1) for s in last)
    fed, logits = torch.zeros(1, 1, c.embedding_size), []
    for token in ids[0]:
        top, state = decoder(torch.cat((model.embed_tokens(token)[None, None], fed), -1), state)
        scores = torch.stack([top[0, 0] @ model.attention.weight @ m for m in memory[0]])
        context = scores.softmax(0) @ memory[0]
        fed = torch.tanh(model.combine.weight @ torch.cat((context, top[0, 0])))[None, None]
        logits.append(model.lm_head(fed[0, 0]))
    return torch.stack(logits)[None]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_papers_by_torchs_layers(kind):
    model, source, ids = made(kind), some_ids(1, 9), some_ids(1, 7, seed=4)
    torch.testing.assert_close(model(source, ids), by_torch(model, source, ids), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_pieces_is_reading_at_once(kind):
    model, source, ids = made(kind), some_ids(3, 9), some_ids(3, 12, seed=4)
    cache = model.encode(source)
    ends = [0, 5, 6, 7, 12]
    pieces = [model.head(model.hidden(ids[:, a:b], cache)) for a, b in itertools.pairwise(ends)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(source, ids), atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == [12, 12, 12]


@torch.no_grad()
def test_padding_of_sources_and_of_what_is_written_has_no_effect():
    model, source, ids = made("deep"), some_ids(3, 9), some_ids(3, 12, seed=4)
    lengths, first = torch.tensor([4, 9, 1]), torch.tensor([2, 5, 1])
    cache = model.encode(source, lengths)
    told = model.hidden(ids[:, :5], cache, first)
    order = torch.tensor([2, 0, 1, 0])
    cache.keep(order)
    assert cache.lengths.tolist() == [1, 2, 5, 2]
    then = model.hidden(ids[order][:, 6:], cache)
    for row, (length, read) in enumerate(zip(lengths.tolist(), first.tolist(), strict=True)):
        joined = torch.cat((ids[row, :read], ids[row, 6:]))[None]
        alone = model.hidden(joined, model.encode(source[row : row + 1, :length]))[0]
        torch.testing.assert_close(told[row, :read], alone[:read], atol=1e-5, rtol=0)
        for place in (order == row).nonzero().flatten().tolist():
            torch.testing.assert_close(then[place], alone[read:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_operations_are_as_many_as_counted(kind):
    model, source, ids = made(kind), some_ids(1, 9), some_ids(1, 7)
    assert parameters(model) == model.config.parameters
    cache = model.encode(source)
    with FlopCounterMode(display=False) as counter:
        model.head(model.hidden(ids, cache))
        model.attention(cache.memory)
    kernel = sum(2 * 9 * w.numel() for name, w in model.encoder.named_parameters() if "weight" in name)
    assert model.config.flops(7, 9) == counter.get_total_flops() + kernel


def test_every_weight_gets_a_gradient_also_through_dropout():
    for share in (0.0, 0.2):
        drops = {"embd_pdrop": share, "hidden_dropout_prob": share, "recurrent_dropout": share}
        model, source, ids = made("deep", **drops).train(), some_ids(4, 9), some_ids(4, 12, seed=4)
        logits = model(source, ids, torch.tensor([9, 3, 4, 5]))
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, (share, name)
            assert weight.grad.isfinite().all(), (share, name)
            assert weight.grad.any(), (share, name)


@torch.no_grad()
@pytest.mark.parametrize("only", ["embd_pdrop", "hidden_dropout_prob", "recurrent_dropout"])
def test_each_dropout_acts_in_training_only(only):
    model, source, ids = made("deep", **{only: 0.3}), some_ids(2, 9), some_ids(2, 5)
    assert torch.equal(model(source, ids), made("deep")(source, ids))
    model.train()
    assert not torch.equal(model(source, ids), model(source, ids))


def test_it_learns_to_copy_backwards():
    """What no fixed state needs to hold: each step has to look at another place."""
    torch.manual_seed(0)
    model = RnnAttention(RnnAttentionConfig(12, 32, decoder_start_token_id=0)).train()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        source = torch.randint(1, 12, (32, 8))
        target = source.flip(1)
        ids = torch.cat((torch.zeros(32, 1, dtype=torch.long), target[:, :-1]), 1)
        loss = nn.functional.cross_entropy(model(source, ids).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.3  # nats; guessing gives 2.4


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_logits_are_the_logits_times_the_factor(kind):
    model, source, ids = made(kind), some_ids(2, 9), some_ids(2, 5)
    before = model(source, ids)
    model.scale_logits(0.5)
    torch.testing.assert_close(model(source, ids), before * 0.5, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_saved_and_loaded_also_in_8_bits(kind, tmp_path):
    model, source, ids = made(kind), some_ids(2, 9), some_ids(2, 5)
    save_model(model, tmp_path / "float")
    same(load_model(tmp_path / "float")(source, ids), model(source, ids))
    small = quantize_int8(copy.deepcopy(model))
    error = (small(source, ids) - model(source, ids)).pow(2).mean().sqrt() / model(source, ids).std()
    assert 0 < error < 0.05
    save_model(small, tmp_path / "int8")
    same(load_model(tmp_path / "int8")(source, ids), small(source, ids))


# -- as a language model


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=20), Sampling(max_tokens=20, temperature=1.0, top_p=0.9)])
def test_a_batch_says_what_each_source_alone_is_told(sampling):
    lm = written()
    for prompt, together in zip(SOURCES, lm.generate(SOURCES, sampling), strict=True):
        alone = lm.generate([prompt], sampling)[0]
        assert (together.text, together.finish) == (alone.text, alone.finish)
        assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert alone.text == "".join(lm.stream(prompt, sampling))


@torch.no_grad()
def test_scores_are_those_of_each_pair_alone():
    lm = written()
    pairs = [(source, target) for source in SOURCES for target in ("and so", "中文", "")]
    for (source, target), scored in zip(pairs, lm.score(pairs), strict=True):
        ids = lm.tokens.encode(target)
        wanted = []
        if ids:
            read = torch.tensor([lm.tokens.encode_source(source)])
            logp = lm.model(read, torch.tensor([[2, *ids[:-1]]]))[0].log_softmax(-1)
            wanted = [logp[i, token].item() for i, token in enumerate(ids)]
        assert scored.logprobs[: len(wanted)] == pytest.approx(wanted, abs=1e-4)


def test_mends_of_the_weights_leave_the_model_as_it_was(tmp_path):
    lm, pair = written(), [("The", " quick brown")]
    before = lm.score(pair)
    for mend in (Temper(2.0), Quantize()):
        mended = mend(lm)
        assert mended.score(pair)[0].total != pytest.approx(before[0].total, abs=1e-5)
        assert lm.score(pair) == before
        folder = tmp_path / type(mend).__name__
        mended.save(folder)
        assert load_base(folder).score(pair)[0].logprobs == pytest.approx(mended.score(pair)[0].logprobs, abs=1e-5)


# -- the config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_size": 9}, "hidden_size = 9 is odd"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"embedding_size": -1}, "embedding_size"),
        ({"decoder_start_token_id": VOCAB}, "decoder_start_token_id"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob"),
        ({"attention": "additive"}, "attention"),
    ],
)
def test_a_config_that_would_give_wrong_answers_is_refused(change, word):
    raw = {"model_type": "qualm-rnn-attention", "vocab_size": VOCAB, "hidden_size": 8, **change}
    with pytest.raises(InputError, match=word):
        RnnAttentionConfig.from_hf(raw, "there/config.json")


def test_a_config_comes_back_from_its_file_and_the_dial_gives_larger_models():
    for kind in KINDS:
        config = made(kind).config
        assert RnnAttentionConfig.from_hf(config.to_hf()) == config
    made_by_dial = [RnnAttentionConfig.sized(depth, 512, 32, eos_token_id=(7, 8)) for depth in (1, 2, 4, 8)]
    sizes = [config.parameters for config in made_by_dial]
    assert sizes == sorted(sizes)
    assert made_by_dial[0].decoder_start_token_id == 7
    assert made_by_dial[0].context == 64
