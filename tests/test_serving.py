"""The server's routes: OpenAI's shapes, whole and streamed answers equal, what is not honoured is refused by name."""

import json

import pytest

from qualm.errors import UsageError
from qualm.lm.base import Completion
from qualm.serving.run import background
from qualm.serving.settings import Limits, check_address
from serving import Client, Counter, chat_body, events, shape_of


@pytest.fixture(scope="module")
def lm():
    return Counter()


@pytest.fixture(scope="module")
def client(lm):
    with background([lm]) as running:
        yield Client(running)


def test_a_chat_is_answered_in_openai_s_shape(client):
    status, headers, answer = client.chat("hello", max_tokens=3, temperature=0, seed=1)
    assert status == 200
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": Counter().whole("hello", sampling(3)).text,
        "refusal": None,
    }
    assert (choice["finish_reason"], choice["logprobs"]) == ("length", None)
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert len(headers["x-request-id"]) == 24


def sampling(tokens: int, seed: int = 1):
    from qualm.lm.base import Sampling

    return Sampling(tokens, seed=seed)


def test_a_stream_is_role_deltas_finish_usage_and_done(client):
    body = chat_body("hello", max_tokens=4, stream=True, seed=1, stream_options={"include_usage": True})
    status, headers, text = client.post("/v1/chat/completions", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *pieces, usage, done = events(text)
    assert done == "[DONE]"
    assert all(piece["object"] == "chat.completion.chunk" and piece["usage"] is None for piece in pieces)
    assert len({piece["id"] for piece in (*pieces, usage)}) == 1
    deltas = [piece["choices"][0] for piece in pieces]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(each["delta"]) == {"content"} and each["finish_reason"] is None for each in deltas[1:-1])
    assert (deltas[-1]["delta"], deltas[-1]["finish_reason"]) == ({}, "length")
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 4)
    whole = client.chat("hello", max_tokens=4, seed=1)[2]["choices"][0]["message"]["content"]
    assert "".join(each["delta"].get("content", "") for each in deltas) == whole


def test_a_legacy_stream_adds_up_to_the_whole(client):
    body = {"prompt": "hello", "max_tokens": 5, "seed": 3, "logprobs": 2}
    whole = client.post("/v1/completions", body)[2]["choices"][0]
    *pieces, done = events(client.post("/v1/completions", {**body, "stream": True})[2])
    choices = [piece["choices"][0] for piece in pieces]
    assert done == "[DONE]"
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        assert [each for choice in choices for each in choice["logprobs"][name]] == whole["logprobs"][name]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["length"]


def test_log_probabilities_in_both_shapes(client):
    answer = client.chat("hello", max_tokens=2, logprobs=True, top_logprobs=3, seed=1)[2]["choices"][0]
    first = answer["logprobs"]["content"][0]
    assert set(first) == {"token", "logprob", "bytes", "top_logprobs"}
    assert bytes(first["bytes"]).decode() == first["token"]
    assert [len(each["top_logprobs"]) for each in answer["logprobs"]["content"]] == [3, 3]
    legacy = client.post("/v1/completions", {"prompt": "hello", "max_tokens": 2, "logprobs": 3, "seed": 1})[2]
    told = legacy["choices"][0]["logprobs"]
    assert told["token_logprobs"] == [-0.25, -0.25]
    assert told["text_offset"] == [0, len(told["tokens"][0])]
    assert client.chat("hello", top_logprobs=3)[0] == 400


def test_several_prompts_and_answers_come_in_order(client):
    body = {"prompt": ["a", "bb"], "n": 2, "max_tokens": 1, "seed": 0}
    choices = client.post("/v1/completions", body)[2]["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    lm = Counter()
    expected = [lm.whole(text, sampling(1, seed)).text for text in ("a", "bb") for seed in (0, 1)]
    assert [choice["text"] for choice in choices] == expected


def test_a_stream_of_several_answers_keeps_them_apart(client):
    text = client.post("/v1/chat/completions", chat_body("a", n=3, max_tokens=4, seed=0, stream=True))[2]
    found = {0: "", 1: "", 2: ""}
    for piece in events(text)[:-1]:
        choice = piece["choices"][0]
        found[choice["index"]] += choice["delta"].get("content", "")
    assert found == {i: Counter().whole("a", sampling(4, i)).text for i in range(3)}


class Judged(Counter):
    """The likelihood of an answer hangs on its seed."""

    def whole(self, text, sampling):
        whole = super().whole(text, sampling)
        return Completion(f"{sampling.seed}", 1, 1, "stop", (-float(sampling.seed % 4),)) if whole else whole


def test_best_of_gives_the_likeliest():
    with background([Judged()]) as running:
        body = {"prompt": "a", "n": 2, "best_of": 4, "seed": 1, "max_tokens": 1}
        choices = Client(running).post("/v1/completions", body)[2]["choices"]
    assert [choice["text"] for choice in choices] == ["4", "1"]


def test_a_model_s_entry_says_what_an_endpoint_needs(client, lm):
    listed = client.get("/v1/models")[2]
    (entry,) = listed["data"]
    assert (listed["object"], entry["id"], entry["object"]) == ("list", "counter", "model")
    assert entry["qualm"]["can"] == ["generate", "score"]
    assert client.get("/v1/models/counter")[2] == entry
    status, _, answer = client.get("/v1/models/other")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_two_models_are_served_side_by_side():
    with background({"before": Counter(), "after": Counter(name="other")}) as running:
        client = Client(running)
        assert [entry["id"] for entry in client.get("/v1/models")[2]["data"]] == ["before", "after"]
        assert client.chat("x", model="after", max_tokens=1)[2]["model"] == "after"
        assert client.chat("x", max_tokens=1)[0] == 404
    with pytest.raises(UsageError, match="two models"):
        background([Counter(), Counter()]).__enter__()


class Mended(Counter):
    def batch(self, rows=32, slots=0):
        from qualm.lm.batch import Whole

        return Whole(self.generate, rows)

    def whole(self, text, sampling):
        notes = {"passages": [("d1", "Ana lives in Bonn.", 0.5)], "calls": (("1 + 1", "2"),)}
        return Completion("2", 1, 1, "stop", (-0.5,), notes)


def test_what_a_mend_did_stands_beside_its_answer():
    expected = {
        "passages": [{"id": "d1", "text": "Ana lives in Bonn.", "score": 0.5}],
        "calls": [{"expression": "1 + 1", "result": "2"}],
    }
    with background([Mended()]) as running:
        client = Client(running)
        assert client.chat("x")[2]["choices"][0]["qualm"] == expected
        streamed = events(client.post("/v1/chat/completions", chat_body("x", stream=True))[2])
        assert streamed[-2]["choices"][0]["qualm"] == expected
        told = client.chat("x", logprobs=True)[2]["choices"][0]
        assert (told["logprobs"], told["qualm"]["logprobs"]) == (None, [-0.5])


def test_unknown_fields_are_ignored_and_named(client):
    _, headers, _ = client.chat("x", max_tokens=1, foo=1, bar=[2])
    assert headers["x-qualm-ignored"] == "bar, foo"
    assert "x-qualm-ignored" not in client.chat("x", max_tokens=1)[1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 10**6}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": "x" * 2000}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"num_beams": 3, "temperature": 1}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else value,
)
def test_what_means_nothing_is_refused_by_name(client, lm, body, param):
    steps = lm.steps
    status, _, answer = client.post("/v1/chat/completions", chat_body("x", **body) | body)
    assert status == 400
    assert shape_of(answer) == {"message", "type", "param", "code"}
    assert answer["error"]["param"].startswith(param)
    assert lm.steps == steps


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": "z"}, "suffix"),
        ({"echo": True, "stream": True}, "stream"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": []}, "prompt"),
    ],
)
def test_what_completions_do_not_do_is_refused_by_name(client, body, param):
    status, _, answer = client.post("/v1/completions", {"prompt": "x", **body})
    assert (status, answer["error"]["param"].split(".")[0]) == (400, param)


def test_a_prompt_too_long_is_refused_also_when_streamed(client):
    for stream in (False, True):
        status, _, answer = client.chat("a long one", stream=stream)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_addresses_that_are_not_there_and_wrong_methods(client):
    assert client.get("/v1/nothing")[2]["error"]["code"] == "not_found"
    status, headers, answer = client.get("/v1/chat/completions")
    assert (status, headers["allow"], answer["error"]["code"]) == (405, "POST", "method_not_allowed")


def test_health_readiness_version_and_metrics(client):
    assert client.get("/health")[2] == {"status": "ok"}
    assert client.get("/ready")[2] == {"status": "ready"}
    assert set(client.get("/version")[2]) == {"version"}
    client.chat("x", max_tokens=3)
    text = client.get("/metrics")[2]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert f'qualm:{name}{{model_name="counter"}} 0.0' in text
    assert 'qualm:request_success_total{finished_reason="length",model_name="counter"}' in text
    assert "qualm:time_to_first_token_seconds_count" in text


def test_a_request_keeps_its_id_and_a_strange_one_is_not_taken(client):
    assert client.get("/version", x_request_id="my-id.7")[1]["x-request-id"] == "my-id.7"
    assert client.get("/version", x_request_id="a b\tc")[1]["x-request-id"] != "a b\tc"


def test_strangers_need_a_key():
    with pytest.raises(UsageError, match="without a key"):
        check_address("0.0.0.0", 8000, guarded=False)
    check_address("0.0.0.0", 8000, guarded=True)
    check_address("127.0.0.1", 0, guarded=False)
    with pytest.raises(UsageError, match="65535"):
        check_address("127.0.0.1", 70000, guarded=True)
    with pytest.raises(UsageError, match="rows"):
        Limits(rows=0)
