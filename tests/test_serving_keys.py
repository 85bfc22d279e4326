"""Keys: no route but /health without one, nobody reads one back, and time does not tell how near a guess was."""

import json
import logging
import re
import statistics
import time

import pytest

from qualm.errors import InputError, UsageError
from qualm.serving import logs
from qualm.serving.around import OPEN
from qualm.serving.keys import SCHEMA, Key, Keys, add, given
from qualm.serving.run import background
from serving import Client, Counter, chat_body

PATHS = re.compile(r"\{[^}]*\}")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def keys(file):
    return {
        "ana": add(file, "ana"),
        "bo": add(file, "bo", models=("other",)),
        "cy": add(file, "cy", per_minute=3),
    }


@pytest.fixture(scope="module")
def running(file, keys):
    with background([Counter(), Counter(name="other")], keys=Keys.read(file)) as running:
        yield running


def routes(running):
    documented = Client(running, "").ask
    assert documented("GET", "/openapi.json")[0] == 401
    app = running.server.config.app.app
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), PATHS.sub("x", path)
    yield from (("GET", path) for path in ("/openapi.json", "/nothing", "/v1", "/tokenize"))


@pytest.mark.parametrize("key", ["", "wrong", "qk-wrong", "ana " * 3, "\xe9" * 10, "x" * 10_000])
def test_every_route_but_health_asks_for_a_key(running, key):
    found = list(routes(running))
    assert len(found) > 15
    for method, path in found:
        header = {"authorization": f"Bearer {key}"} if key else {}
        status, headers, answer = Client(running).ask(method, path, {} if method == "POST" else None, **header)
        if path in OPEN:
            assert status == 200
            continue
        assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
        assert answer["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Token {}", "{}", "bearer {}"])
def test_other_ways_to_say_a_key(running, keys, header):
    status = Client(running).get("/version", authorization=header.format(keys["ana"]))[0]
    assert status == (200 if header == "bearer {}" else 401)


def test_a_key_is_good_for_its_models_alone(running, keys):
    for body in ({"model": "counter"}, {"model": "other"}):
        status, _, answer = Client(running, keys["bo"]).post(
            "/v1/chat/completions", chat_body("x", max_tokens=1, **body)
        )
        assert status == (200 if body["model"] == "other" else 403), answer
    assert [entry["id"] for entry in Client(running, keys["bo"]).get("/v1/models")[2]["data"]] == ["other"]
    assert Client(running, keys["bo"]).get("/v1/models/counter")[0] == 403


def test_a_key_may_be_used_so_often(running, keys):
    client = Client(running, keys["cy"])
    answers = [client.get("/version") for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    assert answers[0][1]["x-ratelimit-remaining-requests"] == "2"
    assert 1 <= int(answers[3][1]["retry-after"]) <= 20
    assert Client(running, keys["ana"]).get("/version")[0] == 200


def test_no_key_is_written_down_anywhere(running, keys, file):
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    before = {name: (log.handlers, log.propagate, log.level) for name in LOGGERS if (log := logging.getLogger(name))}
    logs.to(Kept())
    try:
        found = ""
        for key in (keys["ana"], "wrong-secret-7"):
            client = Client(running, key)
            for path in ("/version", "/v1/models", "/metrics", "/nothing"):
                found += json.dumps(client.get(path)[1:])
            found += json.dumps(client.chat("step fault", model="counter")[1:])
            found += json.dumps(client.post("/v1/chat/completions", b"{")[1:])
    finally:
        for name, (handlers, propagate, level) in before.items():
            log = logging.getLogger(name)
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
    assert len(lines) >= 12
    told = json.loads(lines[0])
    assert {"time", "level", "request_id", "method", "path", "status", "seconds", "key"} <= set(told)
    assert told["key"] == "ana"
    everything = found + "".join(lines) + file.read_text()
    for secret in (*keys.values(), "wrong-secret-7"):
        assert secret not in everything
        assert secret[:12] not in everything
    assert "step fault" not in "".join(lines)


LOGGERS = ("qualm.serving", "uvicorn.error")


def test_the_file_holds_salted_hashes_and_is_for_its_owner(file, keys):
    found = json.loads(file.read_text())
    assert found["schema"] == SCHEMA
    assert len({each["salt"] for each in found["keys"]}) == 3
    assert file.stat().st_mode & 0o077 == 0
    assert Keys.read(file).holder(f"Bearer {keys['cy']}").name == "cy"


def test_what_is_no_file_of_keys_is_refused(tmp_path):
    good = {"schema": SCHEMA, "keys": [{"name": "a", "salt": "00" * 16, "hash": "00" * 32}]}
    file = tmp_path / "keys.json"
    for change in (
        {"schema": "x"},
        {"keys": 1},
        {"keys": [1]},
        {"keys": [{}]},
        {"keys": [{**good["keys"][0], "salt": "zz"}]},
    ):
        file.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=r"keys\.json"):
            Keys.read(file)
    with pytest.raises(UsageError, match="has a key already"):
        file.write_text(json.dumps(good))
        add(file, "a")
    with pytest.raises(UsageError, match="8 to 512"):
        given("short")


def test_time_does_not_tell_how_near_a_guess_was():
    keys = Keys([Key.made(f"k{i}", f"secret-number-{i}-{'x' * 20}") for i in range(20)])
    right = f"secret-number-0-{'x' * 20}"
    guesses = {"near": right[:-1] + "y", "far": "y" * len(right), "first": right}
    times: dict[str, list[float]] = {name: [] for name in guesses}
    for _ in range(300):
        for name, guess in guesses.items():
            started = time.perf_counter()
            keys.holder(f"Bearer {guess}")
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in times.items()}
    assert max(medians.values()) < 1.25 * min(medians.values()), medians
