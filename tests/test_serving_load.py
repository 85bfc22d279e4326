"""Under load, faults and clients that leave: what was let in is finished, the rest is told when to come again, and
nothing goes on for nobody."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qualm.lm.base import Sampling
from qualm.mends.apply import load
from qualm.serving import stream
from qualm.serving.admission import Bucket, Gate
from qualm.serving.errors import Busy
from qualm.serving.flights import Flight
from qualm.serving.run import background
from qualm.serving.settings import Limits
from qualm.serving.worker import UNREAD
from serving import Client, Counter, chat_body, drained, events, held, request, until


def gauge(client: Client, name: str) -> float:
    lines = [line for line in client.get("/metrics")[2].splitlines() if line.startswith(f"qualm:{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_what_is_let_in_is_finished_and_the_rest_is_told_when_to_come_again():
    lm, limits = Counter(pause=0.002), Limits(rows=4, queue=4)
    with background([lm]) as _, background([lm], limits) as running:
        client = Client(running)
        with ThreadPoolExecutor(80) as pool:
            answers = list(pool.map(lambda i: client.chat(f"{i}", max_tokens=20), range(80)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 8
        for status, headers, answer in answers:
            if status == 429:
                assert int(headers["retry-after"]) >= 1
                assert answer["error"]["code"] == "queue_full"
            else:
                assert answer["usage"]["completion_tokens"] == 20
        assert lm.most <= 4
        assert running.house.inside == 0


def test_a_request_for_more_answers_than_there_is_room_for_gets_none():
    with background([Counter()], Limits(rows=2, queue=1)) as running:
        assert Client(running).chat("x", n=4, max_tokens=1)[0] == 429
        assert Client(running).chat("x", n=3, max_tokens=1)[0] == 200


def test_many_requests_share_the_steps():
    lm = Counter(pause=0.002)
    with background([lm], Limits(rows=16)) as running:
        client = Client(running)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda i: client.chat(f"{i}", max_tokens=30), range(16)))
    assert lm.most > 8
    assert lm.steps < 16 * 30 / 4


@pytest.mark.parametrize("way", ["stream", "plain", "queued", "completion"])
def test_nothing_is_written_for_a_client_that_has_gone(way):
    lm = Counter(pause=0.001)
    with background([lm], Limits(rows=1 if way == "queued" else 128, queue=128)) as running:
        client = Client(running)
        path = "/v1/completions" if way == "completion" else "/v1/chat/completions"
        wires = []
        for i in range(40):
            wire = client.wire()
            body = {"prompt": f"{i}"} if way == "completion" else chat_body(f"{i}")
            wire.sendall(request(path, {**body, "max_tokens": 10**6, "stream": way == "stream"}))
            wires.append(wire)
        until(lambda: running.house.inside == 40 and lm.steps > 2)
        for wire in wires:
            wire.close()
        until(lambda: running.house.inside == 0)
        until(lambda: running.house.models["counter"].worker.running == 0)
        assert gauge(client, "num_requests_running") == gauge(client, "kv_cache_usage_perc") == 0
        before = lm.steps
        time.sleep(0.05)
        assert lm.steps == before
        assert client.chat("x", max_tokens=1)[0] == 200


def test_those_that_leave_a_real_model_s_batch_do_not_disturb_the_rest(small_model):
    lm = load(small_model)
    with background([lm], Limits(rows=8, queue=64)) as running:
        client = Client(running)
        asked = {"temperature": 0, "logit_bias": {str(i): -100 for i in lm.ends}}
        alone = client.chat("What has Ana?", max_tokens=60, **asked)[2]["choices"][0]["message"]["content"]
        with ThreadPoolExecutor(4) as pool:
            stays = [pool.submit(client.chat, "What has Ana?", max_tokens=60, **asked) for _ in range(4)]
            wires = [client.open_stream(f"What has {i}?", max_tokens=200, **asked) for i in range(30)]
            for i, wire in enumerate(wires):
                time.sleep(0.005 * (i % 3))
                wire.close()
            texts = [each.result()[2]["choices"][0]["message"]["content"] for each in stays]
        until(lambda: running.house.inside == 0)
        until(lambda: running.house.models["small"].worker.running == 0)  # the thread leaves between two steps
        assert texts == [alone] * 4
        assert running.house.models["small"].worker.faults == 0
        assert gauge(client, "kv_cache_usage_perc") == 0


def test_a_client_that_does_not_read_is_dropped_and_others_are_not_slowed():
    lm = Counter()
    with background([lm], Limits(stall_seconds=1.0)) as running:
        client = Client(running)
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect((client.host, client.port))
        wire.sendall(request("/v1/chat/completions", chat_body("slow", max_tokens=10**6, stream=True)))
        until(lambda: running.house.inside == 1)
        assert client.chat("x", max_tokens=5)[0] == 200
        until(lambda: running.house.inside == 0)
        assert not running.house.models["counter"].worker.flights
        wire.close()


@pytest.mark.parametrize("alternatives", [0, 20])
def test_what_waits_for_a_client_that_does_not_read_is_bounded(alternatives, monkeypatch):
    most = [0]

    class Watched(Flight):
        def put(self, delta):
            super().put(delta)
            most[0] = max(most[0], self.untaken)

    monkeypatch.setattr("qualm.serving.worker.Flight", Watched)
    more = {"logprobs": True, "top_logprobs": alternatives} if alternatives else {}
    with background([Counter()], Limits(stall_seconds=1000)) as running:
        client = Client(running)
        wire = client.open_stream("slow", max_tokens=10**6, **more)
        until(lambda: running.house.inside == 1)
        until(lambda: running.house.inside == 0)
        assert UNREAD < most[0] < 1.01 * UNREAD
        assert gauge(client, "request_aborted_total") == 1
        wire.close()


@pytest.mark.parametrize("where", ["join fault", "step fault"])
def test_a_fault_ends_its_request_alone_and_the_next_ones_are_answered(where, caplog):
    with background([Counter()]) as running:
        client = Client(running)
        status, headers, answer = client.chat(where, max_tokens=5)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert headers["x-request-id"] in answer["error"]["message"]
        assert all(client.chat(f"{i}", max_tokens=4)[0] == 200 for i in range(100))
        assert running.house.models["counter"].worker.faults == 1
        assert "the model failed" in caplog.text


def test_where_memory_runs_out_a_request_is_told_to_come_again_and_the_next_ones_are_answered():
    with background([Counter()]) as running:
        client = Client(running)
        status, headers, answer = client.chat("much", max_tokens=5)
        assert (status, answer["error"]["code"]) == (503, "out_of_memory")
        assert headers["retry-after"]
        assert client.chat("x", max_tokens=4)[0] == 200
        assert running.house.models["counter"].worker.faults == 1


def test_an_error_in_the_middle_of_a_stream_is_an_event():
    with background([Counter(pause=0.01)]) as running:
        status, _, text = Client(running).post("/v1/chat/completions", chat_body("step fault", stream=True))
    assert status == 200
    *pieces, error, done = events(text)
    assert (error["error"]["type"], done) == ("server_error", "[DONE]")
    assert len(pieces) == 3


def test_silence_is_bridged_by_comments(monkeypatch):
    monkeypatch.setattr("qualm.serving.chat.KEEP_ALIVE", 0.05)
    lm = Counter(pause=0.05)
    with background([lm]) as running:
        wire = Client(running).open_stream("x", max_tokens=4)
        wire.recv(100)
        with held(lm):
            time.sleep(0.3)
        text = drained(wire).decode()
        wire.close()
    assert stream.COMMENT in text


def test_what_waits_too_long_is_told_so_and_what_takes_too_long_is_cut():
    lm = Counter(pause=0.005)
    with background([lm], Limits(rows=1, queue_seconds=0.1, answer_seconds=0.5)) as running:
        client = Client(running)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.chat, "first", max_tokens=10**6)
            until(lambda: lm.steps > 1)
            status, headers, answer = client.chat("second", max_tokens=1)
            assert (status, answer["error"]["code"]) == (503, "queue_timeout")
            assert headers["retry-after"]
            (choice,) = first.result()[2]["choices"]
        assert (choice["finish_reason"], choice["qualm"]) == ("length", {"cut": "time"})
        assert choice["message"]["content"].count(" ") > 5
        assert running.house.inside == 0


def test_a_gate_counts_and_a_bucket_fills():
    now = [0.0]
    bucket = Bucket(2, lambda: now[0])
    bucket.take()
    bucket.take()
    with pytest.raises(Busy) as busy:
        bucket.take()
    assert busy.value.retry_after == 30
    now[0] = 30.0
    bucket.take()
    assert bucket.headers()["x-ratelimit-remaining-requests"] == "0"
    gate = Gate(1, 1)
    for _ in range(2):
        gate.enter()
        gate.begin()
    with pytest.raises(Busy) as busy:
        gate.enter()
    assert (busy.value.status, busy.value.code) == (429, "queue_full")
    gate.end(1.0)
    gate.enter()
    gate.closed = True
    with pytest.raises(Busy) as busy:
        gate.enter()
    assert busy.value.status == 503


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from serving import Counter
from qualm.serving.run import bound, run
from qualm.serving.house import House
from qualm.serving.served import Models
with bound("127.0.0.1", 0) as listening:
    print(listening.getsockname()[1], flush=True)
    run(House(Models([Counter(pause=0.02)])), listening)
"""


def test_sigterm_lets_answers_finish_and_takes_no_new_ones():
    tests = __file__.rpartition("/")[0]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER.format(tests=tests)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        client = Client(type("Address", (), {"host": "127.0.0.1", "port": int(process.stdout.readline())}))
        wires = [client.open_stream(f"{i}", max_tokens=60) for i in range(8)]
        begun = [wire.recv(4096) for wire in wires]
        process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/health")[0] == 503, 2.0)
        status, headers, _ = client.chat("late", max_tokens=1)
        assert (status, bool(headers["retry-after"])) == (503, True)
        for first, wire in zip(begun, wires, strict=True):
            text = (first + drained(wire)).decode()
            assert text.count('"content":" ') == 60
            assert "data: [DONE]" in text
            wire.close()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err


def test_the_same_answer_alone_and_among_others():
    lm = Counter()
    with background([lm]) as running:
        client = Client(running)
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda i: client.chat(f"{i}", max_tokens=6, seed=i), range(100)))
    for i, (_, _, answer) in enumerate(together):
        assert answer["choices"][0]["message"]["content"] == lm.whole(f"{i}", Sampling(6, seed=i)).text


def test_two_models_do_not_wait_for_each_other():
    slow, quick = Counter(name="slow"), Counter(name="quick")
    with background([slow, quick]) as running:
        client = Client(running)
        with held(slow):
            thread = threading.Thread(target=client.chat, args=("x",), kwargs={"model": "slow", "max_tokens": 1})
            thread.start()
            assert client.chat("x", model="quick", max_tokens=1)[0] == 200
        thread.join()
    assert json.dumps(slow.written) == '{"x": 1}'
