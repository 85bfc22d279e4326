"""Markers of the template that stand in what users, passages and tools say stay text, on every way into the model."""

import random

import pytest

from qualm.lm.causal import CausalLM
from qualm.mends.retrieval import with_passages
from qualm.models.llama import Llama, LlamaConfig
from qualm.serving.run import background
from serving import Client
from test_tokens_template import control_ids, hostile
from tiny import CONTROL, TEMPLATES, templated

FOUR = ("chatml", "trimmed", "instruct", "default")
COUNT = 200


def served(name: str) -> CausalLM:
    """A small random model whose template is that one."""
    tokens = templated(name)
    config = LlamaConfig(
        vocab_size=tokens.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    model = Llama(config)
    model.init_weights(0)
    return CausalLM(model, tokens, name=name)


class Watched(CausalLM):
    """Keeps the ids of every prompt that it reads."""

    read: list[list[int]]

    def _encode(self, prompt):
        ids = super()._encode(prompt)
        self.read.append(ids)
        return ids


def watched(name: str) -> Watched:
    lm = served(name)
    found = Watched(lm.model, lm.tokens, name=name)
    found.read = []
    return found


def tool(text: str) -> dict:
    return {"type": "function", "function": {"name": "look", "description": text, "parameters": {"title": text}}}


def bodies(text: str) -> dict[str, dict]:
    """A request for each way that a text can come in."""
    call = {"type": "function", "function": {"name": "look", "arguments": text}}
    user = {"role": "user", "content": "hi"}
    return {
        "user": {"messages": [{"role": "user", "content": text}]},
        "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": part} for part in text]}]},
        "system": {"messages": [{"role": "system", "content": text}, user]},
        "passage": {"messages": [{"role": "user", "content": with_passages("hi", [text])}]},
        "tool result": {"messages": [user, {"role": "tool", "content": text}]},
        "tool": {"messages": [user], "tools": [tool(text)]},
        "call": {"messages": [user, {"role": "assistant", "tool_calls": [call]}, user]},
    }


@pytest.mark.parametrize("name", FOUR)
def test_no_control_token_comes_from_a_request(name):
    lm, rng = watched(name), random.Random(3)
    texts = [*CONTROL, *hostile(COUNT - len(CONTROL))]
    assert len(texts) == COUNT
    plain = {way: control_ids(lm.tokens, ids) for way, ids in asked(lm, bodies("plain")).items()}
    with background([lm]) as running:
        client = Client(running)
        for text in texts:
            ways = bodies(text)
            way = rng.choice(list(ways))
            lm.read.clear()
            status, _, answer = client.post("/v1/chat/completions", {**ways[way], "max_tokens": 1})
            assert status == 200, answer
            assert control_ids(lm.tokens, lm.read[-1]) == plain[way], (way, text)


def asked(lm: Watched, ways: dict[str, dict]) -> dict[str, list[int]]:
    """The ids that the model reads for each of the requests."""
    found = {}
    with background([lm]) as running:
        for way, body in ways.items():
            assert Client(running).post("/v1/chat/completions", {**body, "max_tokens": 1})[0] == 200
            found[way] = lm.read[-1]
    return found


@pytest.mark.parametrize("name", FOUR)
def test_no_control_token_comes_from_a_text_to_continue_or_to_cut(name):
    lm = watched(name)
    with background([lm]) as running:
        client = Client(running)
        for text in (*CONTROL, *hostile(40)):
            lm.read.clear()
            assert client.post("/v1/completions", {"prompt": f"a{text}", "max_tokens": 1})[0] == 200
            assert control_ids(lm.tokens, lm.read[-1]) == control_ids(lm.tokens, lm.tokens.start)
            echoed = client.post(
                "/v1/completions", {"prompt": f"a{text}", "max_tokens": 0, "echo": True, "logprobs": 1}
            )
            assert not set(echoed[2]["choices"][0]["logprobs"]["tokens"]) & set(CONTROL)
            cut = client.post("/v1/tokenize", {"prompt": f"a{text}", "add_special_tokens": False})[2]["tokens"]
            assert control_ids(lm.tokens, cut) == []
            assert client.post("/v1/detokenize", {"tokens": cut})[2]["prompt"] == f"a{text}"


def test_the_four_templates_are_there_and_differ():
    assert len({TEMPLATES[name] for name in FOUR}) == 4
