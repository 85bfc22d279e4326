"""What a client puts together from a stream is the whole answer, and what the model said, wherever it is cut."""

import random

import pytest

from qualm.cases import plain
from qualm.lm.answers import Token
from qualm.lm.base import LM, Card, Completion, Sampling
from qualm.lm.batch import Batch, Delta
from qualm.lm.endpoint import Endpoint
from qualm.lm.writer import Writer
from qualm.serving.run import background
from qualm.serving.settings import Limits
from qualm.tokens.detokenizer import ByteDetokenizer
from test_lm_writer import cut_at, texts


def cuts_of(text: str) -> list[bytes]:
    """The bytes of a text in pieces that its own letters draw: some of one byte, some with half a character."""
    data = text.encode()
    draw = random.Random(data)
    return cut_at(data, sorted(draw.sample(range(len(data) + 1), k=draw.randint(0, len(data)))))


class Copyist(LM):
    """Says its prompt, a token for each piece."""

    can = frozenset({"generate"})
    name, card = "copyist", Card("copyist", weights="copyist")

    def generate(self, prompts, sampling: Sampling = Sampling()) -> list[Completion]:
        made = []
        for prompt in prompts:
            writer, cuts = self.writer(plain(prompt), sampling)
            while not writer.finish:
                self.write(writer, cuts)
            made.append(writer.completion(1))
        return made

    def writer(self, text: str, sampling: Sampling) -> tuple[Writer, list[bytes]]:
        cuts = cuts_of(text)
        return Writer(ByteDetokenizer(dict(enumerate(cuts))), sampling, frozenset({len(cuts)}), 10**9), cuts

    def write(self, writer: Writer, cuts: list[bytes]) -> None:
        number = len(writer.tokens)
        piece = cuts[number] if number < len(cuts) else b""
        writer.push(Token(piece.decode("utf-8", "replace"), -1.0, piece, number))

    def batch(self, rows: int = 32, slots: int = 16384) -> Batch:
        return Copying(self, rows)


class Copying(Batch):
    def __init__(self, lm: Copyist, rows: int):
        self.lm, self.rows, self.next = lm, rows, 0
        self.asked: dict[int, tuple[Writer, list[bytes]]] = {}

    def join(self, prompt, sampling: Sampling = Sampling()) -> int:
        self.next += 1
        self.asked[self.next] = self.lm.writer(plain(prompt), sampling)
        return self.next

    def leave(self, ticket: int) -> None:
        self.asked.pop(ticket, None)

    def step(self) -> dict[int, Delta]:
        found = {}
        for ticket, (writer, cuts) in list(self.asked.items())[: self.rows]:
            self.lm.write(writer, cuts)
            if (news := writer.news(1)) is not None:
                found[ticket] = news
            if writer.finish:
                self.leave(ticket)
        return found

    @property
    def running(self) -> int:
        return min(len(self.asked), self.rows)

    @property
    def waiting(self) -> int:
        return len(self.asked) - self.running


@pytest.fixture(scope="module")
def served():
    with background([Copyist()], Limits(choices=1000, queue=1000)) as running:
        yield Endpoint(running.url)


def test_a_thousand_texts_come_streamed_whole_and_beside_the_server_alike(served):
    said = texts(1000)
    sampling = Sampling(10**6)
    assert [found.text for found in Copyist().generate(said, sampling)] == said
    assert [found.text for found in served.generate(said, sampling)] == said
    for text in said:
        pieces = list(served.stream(text, sampling))
        assert "".join(pieces) == text
        assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


@pytest.mark.parametrize("stops", [("fox",), ("</s>",), ("文字",), ("👩\u200d👧", "🇷"), ("رحب", "the", "ox")])
def test_a_stop_string_over_the_edge_of_a_chunk_is_exact(served, stops):
    said, sampling = texts(150), Sampling(10**6, stop=stops)
    wanted = [found.text for found in Copyist().generate(said, sampling)]
    assert wanted != said
    assert not any(stop in text for stop in stops for text in wanted)
    assert [found.text for found in served.generate(said, sampling)] == wanted
    assert ["".join(served.stream(text, sampling)) for text in said] == wanted
