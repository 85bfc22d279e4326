"""Endpoints: equal to the model they serve, patient with what can pass, refused for scoring unless they really can."""

import json
import math
import socket
import time

import pytest

from qualm.cases import ask
from qualm.errors import QualmError, Unreachable, Unsupported, UsageError
from qualm.lm import echo, wire
from qualm.lm.base import Sampling
from qualm.lm.endpoint import Endpoint
from qualm.lm.sampling import Shape
from server import HANG, Toy, served

PROMPTS = ["The cat is", "A house of", "", ask("Where is the river?")]
PAIRS = [
    ("The capi", "tal of France is Rome"),
    ("", "the cat and the 中文 house"),
    ("cat 中文", "文中 the €"),
    ("the é", "é"),
    ("a small", ""),
    ("a small", " red house"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(wire, "FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def toy():
    return Toy()


def texts(completions):
    return [(c.text, c.finish, c.prompt_tokens, c.tokens, c.logprobs) for c in completions]


@pytest.mark.parametrize("sampling", [Sampling(6), Sampling(6, temperature=1.0, seed=3), Sampling(9, stop=(" and",))])
def test_answers_are_those_of_the_model_served(toy, sampling):
    with served(toy) as service:
        there = Endpoint(service.url).generate(PROMPTS, sampling)
    here = toy.generate(PROMPTS, sampling)
    assert [c[:4] for c in texts(there)] == [c[:4] for c in texts(here)]
    assert [c.logprobs for c in there] == [c.logprobs[: len(c.logprobs)] for c in here]


@pytest.mark.parametrize(
    ("shape", "field"), [(Shape("json"), "guided_json"), (Shape("choice", "yes\nno"), "guided_choice")]
)
def test_a_shape_is_passed_on_and_an_answer_without_it_is_refused(toy, shape, field):
    with served(toy) as service:  # which passes over what it does not know
        endpoint = Endpoint(service.url, toy.name)
        assert endpoint.generate(["The cat is"], Sampling(6, shape=shape))[0].finish == "length"  # cut off: not claimed
        with pytest.raises(Unsupported, match="not in the shape"):
            list(endpoint.stream("The cat is", Sampling(6, shape=shape)))
        with pytest.raises(UsageError, match="stop string and a shape"):
            endpoint.generate(["The cat is"], Sampling(6, shape=shape, stop=("x",)))
    assert all(field in body for body in service.asked)


def test_a_shape_that_the_answer_has_is_no_error(toy):
    with served(toy) as service:
        told = list(Endpoint(service.url, toy.name).stream("The cat is", Sampling(6, shape=Shape("regex", "[a-z ]+"))))
    assert "".join(told).startswith(" ")


def test_settings_are_sent_only_when_set(toy):
    with served(toy) as service:
        endpoint = Endpoint(service.url, toy.name)
        endpoint.generate(["a"], Sampling(3))
        endpoint.generate(["a"], Sampling(3, temperature=0.5, top_k=7, top_p=0.9, min_p=0.1, seed=5, stop=("x",)))
        first, second = service.asked
    assert first == {"model": toy.name, "prompt": "a", "max_tokens": 3, "temperature": 0.0, "logprobs": 1}
    extra = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "seed": 5, "stop": ["x"]}
    assert second == {**first, **extra}


def test_more_stop_strings_than_a_request_may_hold_are_applied_all_the_same(toy):
    stops = ("@", "#", "%", "&", " and")
    with served(toy) as service:
        endpoint = Endpoint(service.url)
        (completion,) = endpoint.generate(["The cat is"], Sampling(8, stop=stops))
        pieces = list(endpoint.stream("The cat is", Sampling(8, stop=stops)))
        assert all(len(body["stop"]) == 4 for body in service.asked)
    (whole,) = toy.generate(["The cat is"], Sampling(8))
    assert " and" in whole.text
    assert completion.text == "".join(pieces) == whole.text.split(" and")[0]
    assert completion.finish == "stop"
    assert completion.logprobs == whole.logprobs[: len(toy.pieces(completion.text))]


@pytest.mark.parametrize("prompt", ["The cat is", ask("Where?")])
def test_a_stream_is_the_completion_in_pieces(toy, prompt):
    with served(toy) as service:
        pieces = list(Endpoint(service.url).stream(prompt, Sampling(12)))
    assert len(pieces) > 2
    assert "".join(pieces) == toy.generate([prompt], Sampling(12))[0].text


def test_a_stream_that_breaks_off_is_an_error(toy):
    with served(toy, cut_stream=True) as service:
        stream = Endpoint(service.url).stream("The cat is", Sampling(12))
        assert next(stream)
        with pytest.raises(QualmError, match="broke off"):
            list(stream)


@pytest.mark.parametrize("manner", ["full", "drifting"])
def test_scores_are_those_of_the_model_served(toy, manner):
    with served(toy, echo=manner) as service:
        endpoint = Endpoint(service.url)
        assert endpoint.can == {"generate", "score"}
        assert endpoint.score(PAIRS) == toy.score(PAIRS)


def test_an_answer_to_messages_is_scored_if_the_server_says_its_template(toy):
    pairs = [(ask("Where is the cat?"), "in the house"), (ask("中?"), "the river")]
    with served(toy) as service:
        there = Endpoint(service.url).score(pairs)
    rendered = [(toy.text(messages), " " + answer) for messages, answer in pairs]
    assert [s.logprobs[1:] for s in there] == [s.logprobs[1:] for s in toy.score(rendered)]
    with served(toy, template=False) as service, pytest.raises(Unsupported, match="does not say its chat template"):
        Endpoint(service.url).score(pairs)


LACKS = {
    "ignored": "returns no prompt log-probabilities under echo; it gives those of the generated text only",
    "refused": r"refuses echo with logprobs \(Only no echo is supported\)",
    "zeros": "returns no prompt log-probabilities under echo, only zeros",
    "nulls": "returns no prompt log-probabilities under echo",
    "none": "returns no prompt log-probabilities under echo",
    "noise": "do not add up",
    "unstable": "do not add up|when asked again",
    "unlikely": "do not tell its own next word",
}


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("manner", LACKS)
def test_a_server_that_does_not_score_is_refused_and_told_why(toy, manner, lists):
    with served(toy, echo=manner, lists=lists) as service:
        endpoint = Endpoint(service.url)
        assert endpoint.can == {"generate"}
        with pytest.raises(Unsupported, match=LACKS[manner]) as caught:
            endpoint.score(PAIRS)
        assert service.url in str(caught.value)
        assert len(service.requests) <= 12


@pytest.mark.parametrize("lists", [True, False])
def test_the_check_takes_twelve_requests_at_most_and_is_made_once(toy, lists):
    with served(toy, lists=lists) as service:
        endpoint = Endpoint(service.url)
        assert len(service.requests) == 0
        assert endpoint.check() == ""
        asked = len(service.requests)
        assert asked <= 12
        assert "score" in endpoint.can
        assert len(service.requests) == asked


def choice(tokens, numbers, text, **more):
    return {"text": text, "logprobs": {"tokens": tokens, "token_logprobs": numbers, **more}}


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        (["The", " cat", " is"], (3, 7)),
        (["<s>", "The", " cat", " is"], (0, 3, 7)),
        (["▁The", "▁cat", "▁is"], (3, 7)),
        (["The", "Ġcat", "Ġis"], (3, 7)),
    ],
)
def test_tokens_are_laid_along_the_text_however_they_are_spelled(tokens, ends):
    numbers = [None, *[-1.0] * (len(tokens) - 1)]
    read = echo.read("The cat", choice(tokens, numbers, "The cat is"), 1)
    assert read.ends == ends
    assert read.border(5) == len(ends) - 1  # " cat" straddles


def test_parts_of_a_character_end_with_it():
    offsets = [0, 1, 1, 1, 2, 3]
    tokens = ["a", "\ufffd", "\ufffd", "\ufffd", "b", "c"]
    read = echo.read("a中b", choice(tokens, [-1.0] * 6, "a中bc", text_offset=offsets), 1)
    assert read.ends == (1, 2, 2, 2, 3)
    assert (read.border(1), read.border(2)) == (1, 4)
    drifted = echo.read("a中b", choice(tokens, [-1.0] * 6, "a中bc", text_offset=[0, 1, 2, 3, 4, 5]), 1)
    assert drifted.ends is None
    assert len(drifted.tokens) == 5


@pytest.mark.parametrize("numbers", [[None, None, -1.0], [0.5, -1.0, -1.0], [-1.0, math.nan, -1.0]])
def test_numbers_that_are_no_log_probabilities_are_refused(numbers):
    with pytest.raises(Unsupported):
        echo.read("ab", choice(["a", "b", "c"], numbers, "abc"))


@pytest.mark.parametrize("failure", [429, 500, 503, "reset"])
def test_what_can_pass_is_tried_again(toy, failure):
    with served(toy, failures=[failure, failure]) as service:
        (completion,) = Endpoint(service.url, toy.name, retries=2).generate(["the"], Sampling(3))
        assert completion.finish == "length"
        assert len(service.requests) == 3


def test_a_server_that_hangs_is_left_after_the_time_out(toy):
    with served(toy, failures=["hang"]) as service:
        began = time.monotonic()
        (completion,) = Endpoint(service.url, toy.name, timeout=0.5).generate(["the"], Sampling(3))
        assert completion.text
        assert time.monotonic() - began < HANG


def test_retry_after_is_obeyed(toy):
    with served(toy, failures=[429], retry_after="0.3") as service:
        began = time.monotonic()
        Endpoint(service.url, toy.name).generate(["the"], Sampling(3))
        assert 0.3 <= time.monotonic() - began < 5.0
    assert wire.seconds_asked("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9
    assert wire.seconds_asked("soon") == wire.seconds_asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_prompt_that_is_never_answered_is_unread_and_the_others_go_on(toy):
    prompts = [f"cat {i}" for i in range(9)] + ["POISON"] + ["dog"]
    with served(toy, poison="POISON") as service:
        endpoint = Endpoint(service.url, toy.name, retries=2)
        found = endpoint.generate(prompts, Sampling(3))
        scores = endpoint.score([("the", " cat"), ("POISON", " cat")])
        assert sum("POISON" in str(body) for body in service.asked) == 6
    assert [c.finish for c in found] == ["length"] * 9 + ["unread", "length"]
    assert "500: try again" in found[9].notes["why"]
    assert [c.text for c in found if c.finish != "unread"] == [
        c.text for c in toy.generate(prompts[:9] + prompts[10:], Sampling(3))
    ]
    assert scores[0] == toy.score([("the", " cat")])[0]
    assert math.isnan(scores[1].total)


def test_a_prompt_that_the_server_finds_too_long_is_unread_and_the_others_go_on(toy):
    with served(toy, context=800) as service:
        endpoint = Endpoint(service.url, toy.name)
        assert "score" in endpoint.can
        short, long = endpoint.generate(["the cat", "the cat " * 200], Sampling(3))
        assert (short.finish, long.finish) == ("length", "unread")
        assert "maximum context length is 40 tokens" in long.notes["why"]
        assert endpoint.generate([ask("cat " * 400)], Sampling(3))[0].finish == "unread"
        good, lost = endpoint.score([("the", " cat"), ("the cat " * 200, " cat")])
        assert good == toy.score([("the", " cat")])[0]
        assert "maximum context length" in lost.why
        with pytest.raises(Unsupported, match="context length"):
            list(endpoint.stream("the cat " * 200, Sampling(3)))


def test_a_server_that_answers_nothing_any_more_is_given_up(toy):
    with served(toy, poison="cat") as service:
        endpoint = Endpoint(service.url, toy.name, retries=1, workers=2)
        with pytest.raises(Unreachable, match=r"none of the last \d+ requests"):
            endpoint.generate(["cat"] * 200, Sampling(3))
        assert len(service.asked) < 2 * (wire.GIVE_UP + 4)


def test_a_server_that_is_down_is_named_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    for use in (lambda e: e.generate(["a"]), lambda e: e.can, lambda e: e.card, lambda e: list(e.stream("a"))):
        with pytest.raises(Unreachable) as caught:
            use(Endpoint(url, "any"))
        assert str(caught.value).startswith(url)
        assert f"curl {url}/models" in caught.value.then
        assert caught.value.exit_code == 5


def test_a_refusal_is_raised_with_the_servers_words_and_not_tried_again(toy):
    with served(toy, failures=[400]) as service:
        with pytest.raises(QualmError, match="400: try again"):
            Endpoint(service.url, toy.name).generate(["a"])
        assert len(service.requests) == 1
    with served(toy, key="secret") as service:
        with pytest.raises(QualmError, match="no such key; give the key"):
            Endpoint(service.url, toy.name).generate(["a"])
        assert Endpoint(service.url, toy.name, key="secret").generate(["a"], Sampling(2))[0].text


def test_a_wrong_name_is_answered_with_the_right_ones(toy):
    with served(toy) as service, pytest.raises(UsageError, match="no model 'boy' there; there are: toy-0"):
        Endpoint(service.url, "boy").generate(["a"])
    with served(toy, models=False) as service, pytest.raises(UsageError, match="offers 0 models"):
        assert Endpoint(service.url).name


def test_a_server_without_completions_cannot_continue_text_but_chats(toy):
    with served(toy, completions=False) as service:
        endpoint = Endpoint(service.url)
        assert endpoint.generate([ask("Where?")], Sampling(3)) == [
            c.__class__(**{**c.__dict__, "notes": {}}) for c in toy.generate([ask("Where?")], Sampling(3))
        ]
        assert endpoint.can == {"generate"}
        for ask_it in (lambda: endpoint.generate(["a"]), lambda: list(endpoint.stream("a"))):
            with pytest.raises(Unsupported, match="no such path"):
                ask_it()


def test_a_server_that_gives_no_log_probabilities_or_knows_newer_names_still_answers(toy):
    with served(toy, logprobs=False, newer=True) as service:
        found = Endpoint(service.url).generate(["the", "a", ask("Where?")], Sampling(4))
        streamed = "".join(Endpoint(service.url).stream("the", Sampling(4)))
    assert [c.text for c in found] == [c.text for c in toy.generate(["the", "a", ask("Where?")], Sampling(4))]
    assert all(c.logprobs == () for c in found)
    assert streamed == found[0].text


def test_requests_are_in_flight_together_but_never_more_than_asked_for(toy):
    class Slow(Toy):
        def generate(self, prompts, sampling=Sampling()):
            time.sleep(0.05)
            return super().generate(prompts, sampling)

    with served(Slow()) as service:
        found = Endpoint(service.url, "toy-0", workers=3).generate([f"cat {i}" for i in range(12)], Sampling(2))
        assert 2 <= service.most <= 3
    assert found == [
        c.__class__(**{**c.__dict__, "notes": {}}) for c in toy.generate([f"cat {i}" for i in range(12)], Sampling(2))
    ]


def test_the_card_follows_what_the_server_says_of_the_model(toy):
    with served(toy) as service:
        one, again = Endpoint(service.url), Endpoint(service.url + "/", toy.name)
        assert one.name == toy.name
        assert one.card == again.card  # though "created" differs at every request
        service.lm = Toy(seed=1)
        service.lm.name = toy.name
        assert Endpoint(service.url).card.hash != one.card.hash


def test_addresses_that_cannot_be_meant_are_refused():
    with pytest.raises(UsageError, match="not an http address"):
        Endpoint("ftp://host/v1", "m")
    with pytest.raises(UsageError, match="holds a password") as caught:
        Endpoint("http://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(caught.value)


def test_what_is_no_openai_server_is_said_to_be_none(toy, monkeypatch):
    with served(toy) as service:
        monkeypatch.setattr(service, "chat", lambda handler, body: [1] and handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"))  # fmt: skip
        with pytest.raises(QualmError, match=r"this is no JSON object.*does the address end in /v1"):
            Endpoint(service.url, toy.name).generate([ask("Where?")])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too long"}}, "too long"),
        ({"error": "too long"}, "too long"),
        ({"message": "too\n  long"}, "too long"),
        ({"detail": [{"msg": "x"}]}, '[{"msg": "x"}]'),
        ({}, "{}"),
    ],
)
def test_a_servers_words_are_found_in_every_shape(body, said):
    assert wire.message_of(json.dumps(body).encode()) == said
    assert wire.message_of(b"") == "no message"
