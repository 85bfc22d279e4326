"""Text as it comes: pieces make the whole at every cut, no half character, stop strings whole or not at all."""

import random
import time
from collections.abc import Iterable

import pytest

from qualm.lm.answers import Token
from qualm.lm.base import Sampling
from qualm.lm.stops import Stops
from qualm.lm.writer import Writer
from qualm.tokens.detokenizer import ByteDetokenizer

PIECES = (
    "😀",
    "👩‍👩‍👧",
    "🇫🇷",
    "中文字符",
    "，。",
    "مرحبا",
    "עברית",
    "e\u0301",
    "Straße",
    " the fox",
    "\n\n",
    "\ufffd",
    "a",
    "</s>",
    "12",
)
TABLE = {byte: bytes([byte]) for byte in range(256)}
END = -1


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(PIECES, k=draw.randrange(1, 12))) for _ in range(count)]


def written(cuts: list[bytes], sampling: Sampling = Sampling(max_tokens=10**6)) -> tuple[list[str], Writer]:
    """The texts that came out for tokens of these bytes, and the writer at the end."""
    writer = Writer(ByteDetokenizer(dict(enumerate(cuts))), sampling, frozenset({END}), 10**9)
    out = []
    for token, spelled in enumerate([*cuts, b""]):
        if not writer.finish:
            writer.push(Token("", -1.0, spelled, END if token == len(cuts) else token))
            news = writer.news(1)
            out += [news.text] if news and news.text else []
    return out, writer


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def until_stop(text: str, stops: Iterable[str]) -> str:
    """What is before the first of them to be complete, of several that are complete there before the longest."""
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    return text[: sum(min(ends))] if ends else text


def test_a_thousand_texts_come_out_whole_at_every_cut():
    draw = random.Random(1)
    for text in texts(1000):
        data = text.encode()
        ways = [cut_at(data, [at]) for at in range(1, len(data))]
        ways += [[bytes([byte]) for byte in data], cut_at(data, sorted(draw.sample(range(len(data) + 1), 2)))]
        for cuts in ways:
            out, writer = written(cuts)
            assert "".join(out) == writer.text == text
            assert all(piece.count("\ufffd") <= text.count("\ufffd") for piece in out)


def test_what_is_no_character_is_told_at_the_end():
    out, writer = written([b"a", b"\xf0\x9f"])
    assert (out, writer.text, writer.finish) == (["a", "\ufffd"], "a\ufffd", "stop")


@pytest.mark.parametrize(
    "stops", [("fox",), ("</s>",), ("文字",), ("👩\u200d👧", "🇷"), ("the", " the fox", "ox"), ("aa", "a12")]
)
def test_a_stop_string_is_exact_at_every_cut(stops):
    draw = random.Random(2)
    for text in texts(150):
        data = text.encode()
        wanted = until_stop(text, stops)
        for cuts in (
            cut_at(data, sorted(draw.sample(range(len(data) + 1), k=min(len(data), 4)))),
            [data],
            list_of(data),
        ):
            out, writer = written(cuts, Sampling(max_tokens=10**6, stop=stops))
            assert "".join(out) == writer.text == wanted
            assert not any(stop in writer.text for stop in stops)


def list_of(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def test_stops_are_found_as_by_trying_all_of_them():
    draw = random.Random(3)
    for _ in range(2000):
        text = "".join(draw.choices("ab", k=14))
        strings = ["".join(draw.choices("ab", k=draw.randrange(1, 6))) for _ in range(3)]
        found, stops = None, Stops(strings)
        for end in range(1, len(text) + 1):
            ended = [len(s) for s in strings if text[:end].endswith(s)]
            if ended:
                found = end - max(ended)
                break
            assert stops.push(text[end - 1]) is None
            longest = max((k for s in strings for k in range(1, len(s)) if text[:end].endswith(s[:k])), default=0)
            assert stops.open == longest
        else:
            continue
        assert stops.push(text[end - 1]) == found


def test_a_stop_string_of_a_megabyte_costs_no_more_than_the_text():
    stop = "ab" * 2**19
    began = time.process_time()
    out, writer = written([b"ab"] * 2000, Sampling(max_tokens=10**6, stop=(stop,)))
    assert time.process_time() - began < 2
    assert writer.text == "ab" * 2000 == "".join(out)
    assert out == ["ab" * 2000], "all of it might have been the beginning"


def test_tokens_come_with_the_text_they_begin_in_and_none_after_a_stop():
    _, writer = written([b"one", b" tw", b"o", b" three", b" four"], Sampling(max_tokens=99, stop=("two t",)))
    assert writer.text == "one "
    assert len(writer.tokens) == 2
    assert writer.completion(1).tokens == 2
