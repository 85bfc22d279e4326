"""Beam search finds what trying everything finds, and what transformers' beams find."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from qualm.errors import UsageError
from qualm.lm.base import Sampling
from qualm.lm.beam import Beam, Beams, Plan
from qualm.lm.decode import padded, steps
from qualm.lm.policies import Words, weighing
from qualm.models.base import Decoder
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.rnn import Rnn, RnnConfig
from qualm.models.store import load_model
from qualm.models.t5 import T5, T5Config
from test_families import subject
from tiny import tiny_local

END, VOCAB = 0, 4


def found(model, prompts, plans, cache=None, sampling: Sampling = Sampling()) -> list[list[Beam]]:
    """The finished beams of each prompt, best first."""
    cache = cache or model.new_cache(len(prompts), 16)
    plans = [replace(plan, policies=weighing(sampling, Words(tuple(model.never)))) for plan in plans]
    searches = [Beams(plan, prompt) for plan, prompt in zip(plans, prompts, strict=True)]
    for _ in steps(model, prompts, cache, searches):
        pass
    return [search.best for search in searches]


def toy(kind: str, vocab: int = VOCAB) -> Decoder:
    if kind == "rnn":
        return Rnn(RnnConfig(vocab, 12, initializer_range=2.0)).eval()
    return Gpt(GptConfig(vocab, 16, 2, 2, 64, initializer_range=0.6)).eval()


def everything(model: Decoder, prompt: list[int], room: int, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """The score of every answer: up to its first end token, or as long as there is room."""
    found = set()
    for tokens in itertools.product(range(VOCAB), repeat=room):
        found.add(tokens[: tokens.index(END) + 1] if END in tokens else tokens)
    scores = []
    for tokens in sorted(found):
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *tokens]]))[0].log_softmax(-1)
        nats = sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens))
        scores.append((nats / len(tokens) ** penalty, tokens))
    return sorted(scores, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["gpt", "rnn"])
def test_wide_enough_it_finds_the_best_of_all(kind, penalty):
    model, prompts, room = toy(kind), [[1, 2, 3], [2], [3, 3]], 4
    wide = Plan(VOCAB**room, room, frozenset({END}), penalty)
    for prompt, kept in zip(prompts, found(model, prompts, [wide] * 3), strict=True):
        wanted = everything(model, prompt, room, penalty)
        assert [beam.tokens for beam in kept[:5]] == [tokens for _, tokens in wanted[:5]]
        assert [beam.score for beam in kept] == pytest.approx([score for score, _ in wanted], abs=1e-4)
        assert len(kept) == len(wanted)


def test_one_beam_is_greedy_and_prompts_have_rooms_of_their_own():
    model, prompts = toy("gpt", 40), [[1, 2, 3], [2], [9, 8, 7, 6, 5]]
    together = found(model, prompts, [Plan(1, room, frozenset()) for room in (3, 9, 6)])
    for prompt, room, [beam] in zip(prompts, [3, 9, 6], together, strict=True):
        ids = list(prompt)
        for _ in range(room):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert beam.tokens == tuple(ids[len(prompt) :])


def test_what_is_never_written_is_in_no_beam():
    model = toy("gpt", 12)
    model.never = (3, 4, 5)
    [kept] = found(model, [[1, 2]], [Plan(4, 6, frozenset({0}))])
    assert not {3, 4, 5} & {token for beam in kept for token in beam.tokens}


def theirs(model, ids: torch.Tensor, end: int, **settings) -> list[list[int]]:
    """transformers' five best, without padding."""
    best = model.generate(
        ids, num_beams=5, num_return_sequences=5, do_sample=False, eos_token_id=end, pad_token_id=end, **settings
    )
    return [row.tolist() for row in best]


def cut(tokens: list[int], end: int) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(end) + 1] if end in tokens else tokens)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.7])
@pytest.mark.parametrize(("seed", "vocab"), [(0, 31), (1, 31), (2, 12), (3, 12), (4, 12), (5, 12)])
def test_gpt2_has_transformers_beams(seed, vocab, penalty):
    sizes = {"vocab_size": vocab, "n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 64}
    torch.manual_seed(seed)
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, initializer_range=0.4)).eval()
    model = Gpt(GptConfig(**sizes)).eval()
    model.load_state_dict({k: v for k, v in reference.state_dict().items() if k in model.state_dict()})
    prompts, room = [[1, 2, 3], [7, 8], [10, 9, 4, 11]], 14
    for prompt, mine in zip(prompts, found(model, prompts, [Plan(5, room, frozenset({0}), penalty)] * 3), strict=True):
        given = {"max_new_tokens": room, "length_penalty": penalty, "attention_mask": torch.ones(1, len(prompt))}
        wanted = theirs(reference, torch.tensor([prompt]), 0, **given)
        assert [beam.tokens for beam in mine] == [cut(row[len(prompt) :], 0) for row in wanted]


@pytest.mark.parametrize("seed", range(3))
def test_t5_has_transformers_beams(seed):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 31, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
    sizes |= {"decoder_start_token_id": 2, "pad_token_id": 2, "eos_token_id": 1}
    reference = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, initializer_factor=2.0)).eval()
    model = T5(T5Config(**sizes)).eval()
    model.load_state_dict({k: v for k, v in reference.state_dict().items() if k in model.state_dict()})
    sources = [[5, 6, 7, 1], [9, 1], [3, 4, 5, 6, 7, 8, 1]]
    cache = model.encode(*padded(sources, torch.device("cpu")))
    kept = found(model, [[2]] * 3, [Plan(5, 12, frozenset({1}))] * 3, cache)
    for source, mine in zip(sources, kept, strict=True):
        wanted = theirs(reference, torch.tensor([source]), 1, max_new_tokens=12)
        assert [beam.tokens for beam in mine] == [cut(row[1:], 1) for row in wanted]


ROOM, ENDING, NEAR = 50, 1, 5e-5
LONG = {
    "gpt2": {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.3},
    "t5": {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4},
    "marian": {
        "vocab_size": 61,
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
        "init_std": 0.5,
        "forced_eos_token_id": None,
    },
}
LONG["t5"] |= {"initializer_factor": 1.5, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": ENDING}
LONG["marian"] |= {"decoder_start_token_id": 60, "pad_token_id": 60, "eos_token_id": ENDING}


def pair(family: str, seed: int, folder: Path) -> tuple[Any, Any]:
    """Ours and transformers' with the same weights, in float64, where no two tokens are nearly as likely."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **LONG[family])
    kind = transformers.AutoModelForCausalLM if family == "gpt2" else transformers.AutoModelForSeq2SeqLM
    made = kind.from_config(config)
    made.save_pretrained(folder)
    return load_model(folder).double().eval(), made.double().eval()


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("family", LONG)
def test_fifty_tokens_are_those_of_transformers(family, beams, tmp_path):
    source = torch.Generator().manual_seed(5)
    together: list[tuple[int, ...]] = []
    varied = Sampling(no_repeat_ngram=2 * (family == "t5"))  # which says one token for ever
    for seed in range(2):
        model, reference = pair(family, seed, tmp_path / str(seed))
        prompts = [torch.randint(2, 59, (n,), generator=source).tolist() for n in (3, 1, 7)]
        cache, begun = None, prompts
        if family != "gpt2":
            cache = model.encode(*padded(prompts, torch.device("cpu")))
            begun = [[model.config.decoder_start_token_id]] * len(prompts)
        kept = found(model, begun, [Plan(beams, ROOM, frozenset({ENDING}))] * len(prompts), cache, varied)
        for prompt, mine in zip(prompts, kept, strict=True):
            given = {"attention_mask": torch.ones(1, len(prompt)), "max_new_tokens": ROOM, "do_sample": False}
            given |= {"bad_words_ids": [[token] for token in model.never] or None}
            given |= {"num_beams": beams, "num_return_sequences": beams, "eos_token_id": ENDING}
            given |= {"no_repeat_ngram_size": varied.no_repeat_ngram}
            pad = model.config.pad_token_id if family != "gpt2" else ENDING
            given |= {"return_dict_in_generate": True, "output_scores": True, "pad_token_id": pad}
            told = reference.generate(torch.tensor([prompt]), **given)
            first = len(prompt) if family == "gpt2" else 1
            wanted = [cut(row[first:].tolist(), ENDING) for row in told.sequences]
            assert mine[0].tokens == wanted[0]
            for place in range(1, beams):  # transformers adds scores up in float32: near ones may change places
                apart = abs(mine[place].score - float(told.sequences_scores[place]))
                assert mine[place].tokens == wanted[place] or apart < NEAR
            together += [beam.tokens for beam in mine]
    assert max(map(len, together)) == ROOM
    assert len(set(together)) > len(together) / 2


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_sampling_with_beams_reaches_it(family):
    lm = subject(family)
    prompts, wide = ["The quick brown fox", "Emoji"], Sampling(max_tokens=8, beams=5)
    answers = lm.generate(prompts, wide)
    assert [lm.generate([prompt], wide)[0].text for prompt in prompts] == [a.text for a in answers]
    assert ["".join(lm.stream(prompt, wide)) for prompt in prompts] == [a.text for a in answers]
    assert all(a.tokens == len(a.logprobs) <= 8 for a in answers)
    plain = lm.generate(prompts, Sampling(max_tokens=8))
    assert [a.text for a in answers] != [a.text for a in plain]


def test_beams_that_mean_nothing_are_refused():
    for given in ({"beams": 0}, {"beams": 2, "temperature": 0.5}, {"length_penalty": float("nan")}):
        with pytest.raises(UsageError, match="means nothing here"):
            tiny_local().generate(["a"], Sampling(**given))
