"""No request brings the server down, nor a 5xx, whatever it holds."""

import json
import resource
import time
from pathlib import Path

import pytest

import malformed
from qualm.serving.run import background
from qualm.serving.settings import Limits
from serving import Client, Counter, chat_body, request, shape_of


@pytest.fixture(scope="module")
def client():
    with background([Counter()], Limits(body=2**20, head_seconds=2.0)) as running:
        yield Client(running)


def memory() -> float:
    """Megabytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_a_thousand_malformed_requests(client):
    before, statuses = memory(), {}
    for method, path, body, kind in malformed.requests():
        if len(body) > 2**20:
            body = body[: 2**20]
        status, headers, answer = client.ask(method, path, body, content_type=kind)
        statuses[status] = statuses.get(status, 0) + 1
        if status >= 400:
            assert shape_of(answer) == {"message", "type", "param", "code"}
            assert headers["x-request-id"]
    assert sum(statuses.values()) == 1000
    assert max(statuses) < 500, statuses
    assert sum(count for status, count in statuses.items() if status >= 400) > 600
    assert memory() - before < 20
    assert client.chat("x", max_tokens=1)[0] == 200


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1") else 0


GOOD = request("/v1/chat/completions", chat_body("x", max_tokens=1))
CHUNKED = (
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
)
RAW = {
    "two lengths": GOOD.replace(b"host: x", b"host: x\r\ncontent-length: 5"),
    "length and chunks": GOOD.replace(b"host: x", b"host: x\r\ntransfer-encoding: chunked"),
    "a length that is none": GOOD.replace(b"content-length: ", b"content-length: x"),
    "a negative length": GOOD.replace(b"content-length: ", b"content-length: -"),
    "a chunk without a size": CHUNKED + b"zz\r\nabc\r\n",
    "a huge chunk size": CHUNKED + b"f" * 40 + b"\r\nabc\r\n",
    "a line of a megabyte": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a hundred thousand headers": b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "a header of a megabyte": b"GET /health HTTP/1.1\r\nhost: x\r\na: " + b"b" * 2**20 + b"\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a space in a header's name": b"GET /health HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nhost: x\r\na: \0\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path that is no UTF-8": b"GET /%ff%fe%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path upwards": b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
    "an absolute address": b"GET http://other/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "an upgrade": b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_raw_bytes_are_refused_or_hung_up_on(client, name):
    answer = client.raw(RAW[name], timeout=1)
    assert status_of(answer) in (0, 200, 400, 404, 405, 408, 413, 431), answer[:200]
    assert client.get("/health")[0] == 200


def test_a_smuggled_request_is_not_answered(client):
    inner = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    outer = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    answer = client.raw(outer % (5 + len(inner)) + inner, timeout=1)
    assert answer.count(b"HTTP/1.1") <= 1 or b'"version"' not in answer


def test_requests_in_a_row_are_answered_in_order(client):
    one = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = client.raw(one + GOOD + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.index(b'"status"') < answer.index(b'"choices"') < answer.index(b'"version"')


def test_garbage_behind_a_request_does_not_reach_the_next(client):
    assert status_of(client.raw(GOOD + b"\0\0garbage\r\n\r\n", timeout=3)) == 200
    assert client.chat("x", max_tokens=1)[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_held(client):
    before = memory()
    big = b'{"prompt": "' + b"x" * (64 * 2**20) + b'"}'
    held = memory() - before
    answer = client.raw(request("/v1/completions", big), timeout=5)
    assert status_of(answer) in (413, 0)
    head = request("/v1/completions", b"")[:-4].replace(b"content-length: 0", b"content-length: 67108878")
    answer = client.raw(head + b"\r\n\r\n", timeout=5)
    assert status_of(answer) == 413
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"
    assert memory() - before - held < 5 + len(big) / 1e6


def test_a_body_in_chunks_is_counted(client):
    before = memory()
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with client.wire() as wire:
        wire.sendall(CHUNKED)
        sent = 0
        try:
            while sent < 1024:
                wire.sendall(chunk)
                sent += 1
        except OSError:
            pass
        wire.settimeout(3)
        answer = wire.recv(65536)
    assert status_of(answer) == 413
    assert memory() - before < 5


def test_a_head_and_a_body_that_do_not_come_are_hung_up_on(client):
    started = time.monotonic()
    wires = [client.wire() for _ in range(60)]
    for wire in wires[:30]:
        wire.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n")
    for wire in wires[30:]:
        wire.sendall(request("/v1/completions", b'{"prompt": "x"}')[:-5])
    asked = time.monotonic()
    assert client.chat("x", max_tokens=1)[0] == 200
    assert time.monotonic() - asked < 1
    for wire in wires:
        assert status_of(wire.recv(4096)) == 408
        assert wire.recv(4096) == b""
        wire.close()
    assert 1.5 < time.monotonic() - started < 5
