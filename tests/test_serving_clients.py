"""Clients that were made for other servers work unchanged: OpenAI's own, and scripts written for vLLM."""

import json

import openai
import pytest

from encoder_models import tiny_encoder
from qualm.lm.base import Completion, Sampling, Shape
from qualm.lm.batch import Whole
from qualm.serving.keys import Keys, given
from qualm.serving.run import background
from serving import Client, Counter


@pytest.fixture(scope="module")
def running():
    with background([Counter()], keys=Keys([given("a-secret-key")])) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=running.url, api_key="a-secret-key", max_retries=0) as client:
        yield client


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


def test_models(client):
    assert [model.id for model in client.models.list()] == ["counter"]
    assert client.models.retrieve("counter").owned_by == "qualm"


def test_chat(client):
    answer = client.chat.completions.create(
        model="counter", messages=MESSAGES, max_completion_tokens=4, n=2, logprobs=True, top_logprobs=2, seed=3
    )
    assert len(answer.choices) == 2
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
    assert answer.usage.completion_tokens == 8


def test_a_streamed_chat(client):
    sent = client.chat.completions.create(
        model="counter", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}, seed=3
    )
    pieces = list(sent)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    whole = client.chat.completions.create(model="counter", messages=MESSAGES, max_tokens=5, seed=3)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage == whole.usage
    with client.chat.completions.stream(model="counter", messages=MESSAGES, max_tokens=5, seed=3) as stream:
        assert "".join(event.delta for event in stream if event.type == "content.delta") == text
        assert stream.current_completion_snapshot.choices[0].message.content == text


def test_completions(client):
    answer = client.completions.create(model="counter", prompt=["a", "b"], max_tokens=2, logprobs=1, seed=1)
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [2, 2]
    pieces = client.completions.create(model="counter", prompt="a", max_tokens=2, seed=1, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


def test_errors_are_of_the_client_s_kinds(client, running):
    kinds = {
        openai.NotFoundError: {"model": "other", "messages": MESSAGES},
        openai.BadRequestError: {"model": "counter", "messages": MESSAGES, "temperature": 9},
        openai.InternalServerError: {"model": "counter", "messages": [{"role": "user", "content": "join fault"}]},
    }
    for kind, body in kinds.items():
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**body)
        assert caught.value.request_id
    stranger = openai.OpenAI(base_url=running.url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_client_waits_and_comes_again_when_told_to():
    """The rate limit's Retry-After is obeyed by the client itself."""
    keys = Keys([given("a-secret-key", per_minute=60)])
    with background([Counter()], keys=keys) as running:
        bucket = running.server.config.app.buckets["default"]
        with openai.OpenAI(base_url=running.url, api_key="a-secret-key", max_retries=2) as client:
            client.models.list()
            bucket.left = 0.5
            assert client.models.list().data


class Caller(Counter):
    """Answers with a call of the tool, between the tags, or as it is bound to."""

    def __init__(self) -> None:
        super().__init__(name="caller")
        self.asked: list[tuple[object, Sampling]] = []

    def batch(self, rows=32, slots=0):
        return Whole(self.generate, rows)

    def generate(self, prompts, sampling=Sampling()):
        self.asked += [(prompt, sampling) for prompt in prompts]
        call = json.dumps({"name": "add", "arguments": {"a": 1}})
        text = call if sampling.shape else f"Let me see. <tool_call>{call}</tool_call>"
        return [Completion(text, 3, 9) for _ in prompts]


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "add"}}])
def test_tools(choice):
    lm = Caller()
    with background([lm]) as running, openai.OpenAI(base_url=running.url, api_key="x") as client:
        asked = {"model": "caller", "messages": MESSAGES, "tools": [TOOL], "tool_choice": choice}
        whole = client.chat.completions.create(**asked).choices[0]
        pieces = [piece.choices[0] for piece in client.chat.completions.create(**asked, stream=True)]
    assert whole.finish_reason == pieces[-1].finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 1})
    (streamed,) = [each for piece in pieces for each in piece.delta.tool_calls or ()]
    assert (streamed.function.name, streamed.function.arguments) == ("add", call.function.arguments)
    assert whole.message.content == (None if choice != "auto" else "Let me see.")
    said = "".join(piece.delta.content or "" for piece in pieces)
    assert "<" not in said
    prompt, sampling = lm.asked[0]
    assert '"name": "add"' in prompt[0]["content"]
    assert (sampling.shape is None) == (choice == "auto")


def test_the_result_of_a_tool_is_told_to_the_model():
    lm = Caller()
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    with background([lm]) as running, openai.OpenAI(base_url=running.url, api_key="x") as client:
        client.chat.completions.create(model="caller", messages=messages, tools=[TOOL], tool_choice="none")
    (_, said, result), _ = lm.asked[0]
    assert said == {"role": "assistant", "content": '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'}
    assert result == {"role": "user", "content": "<tool_response>\n2\n</tool_response>"}


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ({"response_format": {"type": "json_object"}}, Shape("json", '{"type": "object"}')),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "null"}}}},
            Shape("json", '{"type": "null"}'),
        ),
        ({"extra_body": {"guided_regex": "a+"}}, Shape("regex", "a+")),
        ({"extra_body": {"guided_choice": ["yes", "no"]}}, Shape("choice", "yes\nno")),
        ({"extra_body": {"guided_grammar": "start: A"}}, Shape("grammar", "start: A")),
        ({"extra_body": {"guided_json": {"type": "null"}}}, Shape("json", '{"type": "null"}')),
        ({"response_format": {"type": "text"}}, None),
    ],
)
def test_the_shape_of_an_answer_reaches_the_model(body, shape):
    lm = Caller()
    with background([lm]) as running, openai.OpenAI(base_url=running.url, api_key="x") as client:
        client.chat.completions.create(model="caller", messages=MESSAGES, **body)
    assert lm.asked[0][1].shape == shape


def test_a_script_for_vllm(running):
    """What vLLM's own examples send beside OpenAI's fields: sampling, tokens, bare routes."""
    client = Client(running, "a-secret-key")
    sampling = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": False, "top_p": 0.9}
    body = {"model": "counter", "prompt": "a", "max_tokens": 2, "seed": 1, **sampling}
    status, headers, answer = client.post("/v1/completions", body)
    assert (status, headers["x-qualm-ignored"]) == (200, "ignore_eos")
    assert len(answer["choices"][0]["text"].split()) == 2
    assert client.get("/version")[2]["version"]
    assert "num_requests_running" in client.get("/metrics")[2]
    assert client.post("/tokenize", {"model": "counter", "prompt": "a"})[0] == 400  # no tokenizer here


def test_embeddings_are_those_of_the_model():
    lm = tiny_encoder("none")
    with background([lm]) as running, openai.OpenAI(base_url=running.url, api_key="x") as client:
        answer = client.embeddings.create(model=lm.name, input=["a dog", "a cat"])  # asks for base64
        plain = client.embeddings.create(model=lm.name, input="a dog", encoding_format="float")
    here = lm.embed(["a dog", "a cat"])
    for each, there in zip(here, answer.data, strict=True):
        assert there.embedding == pytest.approx(each.tolist(), abs=1e-6)
    assert plain.data[0].embedding == pytest.approx(here[0].tolist(), abs=1e-6)
    assert answer.usage.prompt_tokens > 0
