"""The server over a real model and its batch: texts as they are, whoever else is answered; beams, shapes, room."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from qualm.lm.base import Sampling
from qualm.lm.batch import Token
from qualm.lm.writer import Writer
from qualm.mends.apply import load
from qualm.serving.run import background
from qualm.serving.settings import Limits
from qualm.tokens.detokenizer import ByteDetokenizer
from serving import Client, Counter, Counting, chat_body, events
from test_lm_writer import cut_at, until_stop

SIGNS = [
    "a",
    "b ",
    " The",
    "\n",
    "é",
    "猫",
    "漢字",
    "مرحبا",
    "👩‍👩‍👧‍👦",
    "🇩🇪",
    "🙂",
    "\u200d",
    "\u0301",
    "ﷺ",
    '"',
    "\\",
    "</s>",
    "{",
    "\t",
    "\u2028",
]


class Saying(Counter):
    """Says what it is asked, in tokens cut at random between any two bytes."""

    def batch(self, rows=32, slots=0):
        return Pieces(self, rows, slots)


class Pieces(Counting):
    def join(self, prompt, sampling=Sampling()):
        ticket = super().join(prompt, sampling)
        data = self.asked[ticket][0].encode()
        draw = random.Random(data)
        cuts = cut_at(data, sorted(draw.sample(range(len(data) + 1), draw.randint(0, len(data)))))
        self.asked[ticket] = (
            cuts,
            Writer(ByteDetokenizer(dict(enumerate(cuts))), sampling, frozenset({len(cuts)}), 10**9),
        )
        return ticket

    def step(self):
        found = {}
        for ticket, (cuts, writer) in list(self.asked.items())[: self.rows]:
            at = self.done[ticket] = len(writer.tokens)
            piece = cuts[at] if at < len(cuts) else b""
            writer.push(Token(piece.decode("utf-8", "replace"), -1.0, piece, at))
            if news := writer.news(1):
                found[ticket] = news
            if writer.finish:
                self.leave(ticket)
        return found


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(SIGNS, k=rng.randrange(1, 30))) for _ in range(count)]


def both(client: Client, text: str, **more) -> tuple[str, str]:
    """What is said whole, and the pieces of a stream put together; none of them has a sign that is not in the text."""
    whole = client.chat(text, **more)[2]["choices"][0]["message"]["content"]
    pieces = events(client.post("/v1/chat/completions", chat_body(text, stream=True, **more))[2])
    deltas = [each["choices"][0]["delta"].get("content", "") for each in pieces[:-1]]
    assert not any("\ufffd" in delta for delta in deltas)
    return whole, "".join(deltas)


def test_a_thousand_texts_come_as_they_are_whole_and_in_pieces():
    with background([Saying()]) as running, ThreadPoolExecutor(8) as pool:
        every = texts(1000)
        for text, found in zip(every, pool.map(partial(both, Client(running)), every), strict=True):
            assert found == (text, text)


@pytest.mark.parametrize("stops", [["</s>"], ["漢字", "猫"], ["\u200d👧"], ["رحب", " The", "h"]])
def test_a_stop_string_is_exact_over_the_edges_of_tokens_and_chunks(stops):
    with background([Saying()]) as running, ThreadPoolExecutor(8) as pool:
        every = texts(150)
        wanted = [until_stop(text, stops) for text in every]
        assert wanted != every
        for text, found in zip(wanted, pool.map(partial(both, Client(running), stop=stops), every), strict=True):
            assert found == (text, text)


@pytest.fixture(scope="module")
def lm(small_model):
    return load(small_model)


@pytest.fixture(scope="module")
def client(lm):
    with background([lm], Limits(rows=16, queue=64)) as running:
        yield Client(running)


def prompts(count: int) -> list[str]:
    rng = random.Random(1)
    return [
        f"{rng.choice(['Ana', 'Bo', 'Cy'])} has a {rng.choice(['red', 'blue'])} cat. {'The cat ' * (i % 9)}{i}"
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_the_answer_is_the_same_alone_and_among_sixteen(client, lm, count):
    asked = prompts(count)
    bodies = [{"prompt": text, "max_tokens": 12, "temperature": t, "seed": 7} for text in asked for t in (0, 1)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda body: client.post("/v1/completions", body)[2]["choices"][0]["text"], bodies))
    alone = [client.post("/v1/completions", body)[2]["choices"][0]["text"] for body in bodies]
    assert together == alone
    greedy = [completion.text for completion in lm.generate(asked, Sampling(12))]
    assert alone[::2] == greedy


def test_beams_come_best_first(client, lm):
    body = {"prompt": "Ana has", "max_tokens": 6, "num_beams": 4, "n": 3}
    choices = client.post("/v1/completions", body)[2]["choices"]
    assert len({choice["text"] for choice in choices}) == 3
    best = lm.generate(["Ana has"], Sampling(6, beams=4))[0]
    assert choices[0]["text"] == best.text
    same = client.post("/v1/completions", {"prompt": "Ana has", "max_tokens": 6, "use_beam_search": True, "n": 4})
    assert same[2]["choices"][0]["text"] == best.text


SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


def test_the_shape_of_an_answer_is_kept(client):
    for form in ({"json_schema": {"name": "s", "schema": SCHEMA}, "type": "json_schema"},):
        body = chat_body("Ana", response_format=form, max_tokens=40)
        assert json.loads(client.post("/v1/chat/completions", body)[2]["choices"][0]["message"]["content"])["a"] in "xy"
    for guide, allowed in (
        ({"guided_choice": ["red", "blue"]}, {"red", "blue"}),
        ({"guided_regex": "(ab){2}"}, {"abab"}),
    ):
        answer = client.post("/v1/chat/completions", chat_body("Ana", max_tokens=20, **guide))[2]
        assert answer["choices"][0]["message"]["content"] in allowed


@pytest.mark.parametrize(
    "guide",
    [
        {"guided_regex": "(" * 100},
        {"guided_regex": "(a?){64}a{64}" * 20},
        {"guided_grammar": "start: start"},
        {"guided_grammar": "\x00"},
        {"guided_json": {"type": "nonsense"}},
        {"guided_json": {"$ref": "#"}},
        {"guided_json": {"$ref": "http://example.com/schema"}},
        {"guided_json": {"allOf": [{"type": "null"}, {"type": "string"}]}},
    ],
    ids=lambda guide: str(guide)[:40],
)
def test_a_hostile_shape_is_refused_or_kept_soon(client, guide):
    started = time.monotonic()
    status, _, answer = client.post("/v1/chat/completions", chat_body("Ana", max_tokens=4, **guide))
    assert status in (200, 400), answer
    assert time.monotonic() - started < 10
    assert client.chat("Ana", max_tokens=1)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 2**31},
        {"n": 10**6},
        {"stop": "x" * 10**6},
        {"logit_bias": {str(i): 1 for i in range(10**4)}},
        {"best_of": 10**4},
    ],
    ids=lambda body: next(iter(body)),
)
def test_what_is_far_too_much_is_refused_at_once(client, body):
    times = []
    for _ in range(5):
        started = time.monotonic()
        assert client.post("/v1/completions", {"prompt": "x", **body})[0] == 400
        times.append(time.monotonic() - started)
    assert min(times) < 0.05


def test_a_request_that_never_fits_is_refused_and_one_that_fits_later_waits(lm):
    with background([lm], Limits(rows=8, slots=64, queue=64)) as running:
        client = Client(running)
        status, _, answer = client.post("/v1/completions", {"prompt": "The cat is red. " * 20, "max_tokens": 200})
        assert status == 400, answer
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda i: client.post("/v1/completions", {"prompt": f"Ana {i}", "max_tokens": 20}), range(16))
            )
        assert {status for status, _, _ in found} == {200}
