"""The server under load, over loopback: many streaming clients, ten times more requests than there is room for, clients
that leave. Prints what was asked for and what came, and leaves with 1 if a bound is missed.

    python benchmarks/serving.py MODEL steady --clients 64 --seconds 300
    python benchmarks/serving.py MODEL overload --times 10 --seconds 60
    python benchmarks/serving.py MODEL leavers --clients 1000
    python benchmarks/serving.py MODEL slow --seconds 60
    python benchmarks/serving.py MODEL stalled --seconds 120
    python benchmarks/serving.py MODEL long --memory 2

The server runs in a process of its own, and is killed at the end.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROWS, QUEUE = 16, 48
LONGEST = 1000  # tokens of an answer that nobody reads
UNENDED = {str(token): -100 for token in range(3)}  # an end token is one of the first, usually
PROMPTS = (
    "Ana has",
    "The cat is",
    "Bo has a red",
    "What colour is the fox?",
    "猫是什么颜色？",
    "Tell me of the owl 🦉",
)


@dataclass
class Seen:
    """What the clients saw."""

    statuses: dict[int, int] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)  # seconds to the first token of what was accepted
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    cut: int = 0  # accepted, and not brought to its [DONE]
    without: int = 0  # refused without Retry-After
    errors: int = 0  # resets, refused connections
    told: float = 1.0  # seconds to wait, as the last refusal said

    def count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Server:
    """`qualm serve` in a process of its own."""

    def __init__(self, model: str, rows: int, queue: int, memory: float = 0):
        self.rows, self.queue = rows, queue
        words = ["serve", f"m={model}", "--port", "0", "--rows", str(rows), "--queue", str(queue), "-v"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qualm", *words],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
            preexec_fn=bounded(memory) if memory else None,
        )
        assert self.process.stderr is not None
        found = None
        while found is None:
            line = self.process.stderr.readline()
            assert line, "the server did not start"
            found = re.search(r"http://[\d.]+:(\d+)/v1", line)
        self.port = int(found[1])
        self.log = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    @property
    def memory(self) -> float:
        """Resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    @property
    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def gauges(self) -> dict[str, float]:
        """What /metrics says is so now, and how many answers nobody waited for."""
        text = (await get(self.port, "/metrics")).decode()
        found = re.findall(
            r"^qualm:(num_requests_\w+|kv_cache_usage_perc|model_faults|request_aborted_total)\{.*\} (\S+)",
            text,
            re.M,
        )
        return {name: float(value) for name, value in found}

    async def idle(self, seconds: float = 30.0) -> float:
        """Seconds until nothing runs and waits."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            now = await self.gauges()
            if now["num_requests_running"] == now["num_requests_waiting"] == now["kv_cache_usage_perc"] == 0:
                return time.monotonic() - started
            await asyncio.sleep(0.02)
        return float("inf")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.log.wait(timeout=10)
        return code


def bounded(gigabytes: float) -> Callable[[], None]:
    """Called in the server's process, lets it have so much memory and no more."""
    size = int(gigabytes * 2**30)
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size))


async def get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    found = await reader.read()
    writer.close()
    return found


def body(number: int, tokens: int, stream: bool = True, times: int = 1, **more: Any) -> bytes:
    text = " ".join([PROMPTS[number % len(PROMPTS)]] * times) + f" ({number})"
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "stream": stream, "temperature": 1}
    data = json.dumps({**asked, "logit_bias": UNENDED, **more}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close"
    return f"{head}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


async def ask(port: int, number: int, tokens: int, seen: Seen, times: int = 1) -> int:
    """One streamed request to its end, its prompt said `times` times over; its status, 0 if the connection broke."""
    started, first = time.monotonic(), 0.0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(body(number, tokens, times=times))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split(" ", 2)[1])
        seen.count(status)
        text = b""
        while piece := await reader.read(65536):
            if not first and b'"content":"' in piece.replace(b'"content":""', b""):
                first = time.monotonic() - started
            text += piece
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        seen.errors += 1
        return 0
    if status != 200:
        asked = re.search(r"retry-after: (\d+)", head)
        seen.without += asked is None
        seen.told = float(asked[1]) if asked else seen.told
        return status
    seen.cut += b"data: [DONE]" not in text
    seen.tokens += text.count(b'"content":"') - text.count(b'"content":""')
    seen.first.append(first)
    seen.whole.append(time.monotonic() - started)
    return status


def share(numbers: list[float], p: float) -> float:
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(p * len(ordered)))] if ordered else float("nan")


def slower(seen: Seen, calm: Seen) -> float:
    """How many times as long whole answers take, at p95."""
    return share(seen.whole, 0.95) / share(calm.whole, 0.95)


def told(seen: Seen, seconds: float) -> str:
    times = ", ".join(f"p{round(100 * p)} {share(seen.first, p):.3f} s" for p in (0.5, 0.95, 0.99))
    whole = ", ".join(f"p{round(100 * p)} {share(seen.whole, p):.3f} s" for p in (0.5, 0.95))
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(seen.statuses.items()))
    return (
        f"{counts}; cut {seen.cut}, broken {seen.errors}, refused without Retry-After {seen.without}\n"
        f"time to first token {times}; whole {whole}; {seen.tokens / seconds:.0f} pieces/s"
    )


async def steady(server: Server, clients: int, seconds: float, tokens: int) -> list[str]:
    """So many clients, each asking again as soon as it was answered."""
    seen, end = Seen(), time.monotonic() + seconds
    await asyncio.gather(*(ask(server.port, i, 8, Seen()) for i in range(server.rows)))
    memory = [server.memory]

    async def client(number: int) -> None:
        while time.monotonic() < end:
            await ask(server.port, number, tokens, seen)

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(5)
            memory.append(server.memory)

    await asyncio.gather(watch(), *(client(i) for i in range(clients)))
    idle = await server.idle()
    half = memory[len(memory) // 2]
    print(f"{clients} clients, {seconds:.0f} s, {tokens} tokens each: {told(seen, seconds)}")
    most = max(memory)
    print(f"memory {memory[0]:.0f} MB at first, {half:.0f} at half time, {most:.0f} at most; idle after {idle:.2f} s")
    wrong = [f"statuses {seen.statuses}"] if set(seen.statuses) - {200} else []
    wrong += [f"{seen.cut} answers cut, {seen.errors} connections broken"] if seen.cut or seen.errors else []
    wrong += [f"memory grew from {half:.0f} to {memory[-1]:.0f} MB"] if memory[-1] > 1.1 * half + 10 else []
    return wrong + ([f"idle after {idle} s"] if idle > 5 else [])


async def overload(server: Server, times: int, seconds: float, tokens: int) -> list[str]:
    """`times` as many clients as there is room for; a refused one waits as it was told, 5 s at most."""
    calm, seen = Seen(), Seen()
    for i in range(30):
        await ask(server.port, i, tokens, calm)
    before, end, most = server.memory, time.monotonic() + seconds, [0.0]

    async def client(number: int) -> None:
        while time.monotonic() < end:
            if await ask(server.port, number, tokens, seen) != 200:
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(seen.told, 5.0))

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(1)
            now = await server.gauges()
            most.append(now["num_requests_running"] + now["num_requests_waiting"])

    await asyncio.gather(watch(), *(client(i) for i in range(times * (server.rows + server.queue))))
    idle, after = await server.idle(), server.memory
    print(f"{times} x overload, {seconds:.0f} s: {told(seen, seconds)}")
    ratio, room = slower(seen, calm), server.rows + server.queue
    print(f"alone: whole p95 {share(calm.whole, 0.95):.3f} s, so x {ratio:.2f}")
    print(f"inside {max(most):.0f} of {server.rows} rows + {server.queue} waiting at most; idle after {idle:.2f} s")
    print(f"memory {before:.0f} -> {after:.0f} MB")
    wrong = [f"statuses {seen.statuses}"] if set(seen.statuses) - {200, 429, 503} else []
    wrong += [f"{seen.cut} answers cut, {seen.without} without Retry-After"] if seen.cut or seen.without else []
    wrong += [f"memory {before:.0f} -> {after:.0f} MB"] if after > 1.1 * before + 10 else []
    wrong += [f"{max(most):.0f} inside"] if max(most) > room else []
    wrong += [f"whole p95 x {ratio:.2f}"] if ratio > 3 and not server.queue else []  # who waits takes longer
    return wrong + ([f"idle after {idle} s"] if idle > 5 else [])


async def leavers(server: Server, clients: int, tokens: int) -> list[str]:
    """Clients that ask and leave: at once, before the first token, in the middle, as a stream or not."""
    rng = random.Random(0)

    async def client(number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(body(number, tokens, stream=number % 2 == 0))
            for _ in range(number % 3):
                await asyncio.wait_for(reader.read(256), 1.0)
            await asyncio.sleep(rng.uniform(0, 0.2))
            writer.transport.abort()
        except (OSError, TimeoutError):
            pass

    for start in range(0, clients, 100):
        await asyncio.gather(*(client(i) for i in range(start, min(clients, start + 100))))
    idle, now, seen = await server.idle(), await server.gauges(), Seen()
    await ask(server.port, 0, 4, seen)
    print(f"{clients} clients that left: idle after {idle:.2f} s, {now}; the next one: {seen.statuses}")
    wrong = [f"idle after {idle} s"] if idle > 5 else []
    return wrong + ([f"the next one: {seen.statuses}"] if seen.statuses != {200: 1} else [])


async def slow(server: Server, seconds: float, tokens: int) -> list[str]:
    """Half-open heads and bodies that come a byte a second, beside a good client."""
    calm, seen = Seen(), Seen()
    for i in range(60):
        await ask(server.port, i, tokens, calm)
    closed: list[float] = []

    async def hang(data: bytes, drip: bool) -> None:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        answer = asyncio.ensure_future(reader.read())
        while not answer.done() and time.monotonic() - started < seconds:
            if drip and not writer.is_closing():
                writer.write(b" ")
            await asyncio.wait([answer], timeout=1)
        closed.append(time.monotonic() - started)
        answer.cancel()
        writer.transport.abort()

    async def good() -> None:
        end = time.monotonic() + min(seconds, 12)
        while time.monotonic() < end:
            await ask(server.port, 0, tokens, seen)

    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
    started = head + b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n{"
    await asyncio.gather(good(), *(hang(head, False) for _ in range(300)), *(hang(started, True) for _ in range(100)))
    ratio = slower(seen, calm)
    print(f"400 slow clients: the last one was closed after {max(closed):.1f} s; good client p95 x {ratio:.2f}")
    wrong = [f"closed after {max(closed):.1f} s"] if max(closed) > 10 else []
    return wrong + ([f"good client p95 x {ratio:.2f}"] if ratio > 2 else [])


async def stalled(server: Server, seconds: float, tokens: int) -> list[str]:
    """A client that asks for a long answer and reads none of it, beside a good one."""
    calm, beside, after = Seen(), Seen(), Seen()
    for i in range(30):
        await ask(server.port, i, tokens, calm)
    memory, most, dropped = server.memory, server.memory, float("inf")
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", server.port))
    wire.sendall(body(0, LONGEST, logprobs=True, top_logprobs=20))  # more than the system holds for both sides
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        await ask(server.port, 1, tokens, beside if dropped == float("inf") else after)
        most = max(most, server.memory)
        if dropped == float("inf") and (await server.gauges()).get("request_aborted_total"):
            dropped = time.monotonic() - began
    wire.setblocking(False)
    text = b""
    with contextlib.suppress(OSError):
        while piece := wire.recv(65536):
            text += piece
    wire.close()
    ratio = slower(after, calm)
    print(f"a client that did not read for {seconds:.0f} s: dropped after {dropped:.1f} s, {len(text)} bytes had come")
    print(f"memory {memory:.0f} -> {most:.0f} MB at most; beside it {told(beside, dropped)}")
    print(f"after it {told(after, seconds - dropped)}; x {ratio:.2f} of before")
    wrong = [f"dropped after {dropped} s"] if dropped > 60 else []
    wrong += ["the answer had ended"] if b"[DONE]" in text else []
    wrong += [f"whole p95 x {ratio:.2f} after it"] if not ratio < 2 else []
    for seen in (beside, after):
        wrong += [f"statuses {seen.statuses}, {seen.cut} cut"] if set(seen.statuses) - {200} or seen.cut else []
    return wrong


async def long(server: Server, clients: int, tokens: int) -> list[str]:
    """Prompts up to what the model can read and beyond, of many clients at once, then a short one."""
    seen, last, before = Seen(), Seen(), server.memory
    for times in (10, 100, 1000, 10000):
        await asyncio.gather(*(ask(server.port, i, tokens, seen, times) for i in range(clients)))
    await ask(server.port, 0, tokens, last)
    print(f"{clients} clients, prompts of 10 to 10,000 phrases: {seen.statuses}; broken {seen.errors}, cut {seen.cut}")
    print(f"memory {before:.0f} -> {server.memory:.0f} MB; the next one: {last.statuses}")
    wrong = [f"statuses {seen.statuses}"] if set(seen.statuses) - {200, 400, 413, 429, 503} else []
    wrong += [f"{seen.errors} broken, {seen.cut} cut"] if seen.errors or seen.cut else []
    return wrong + ([f"the next one: {last.statuses}"] if last.statuses != {200: 1} else [])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("what", choices=["steady", "overload", "leavers", "slow", "stalled", "long"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queue", type=int, help="usually as long as the rows in overload, else as the clients need")
    parser.add_argument("--memory", type=float, default=0, help="gigabytes that the server may have; 0 for all")
    given = parser.parse_args()
    usual = given.rows if given.what == "overload" else max(QUEUE, given.clients)
    server = Server(given.model, given.rows, usual if given.queue is None else given.queue, given.memory)
    runs = {
        "steady": lambda: steady(server, given.clients, given.seconds, given.tokens),
        "overload": lambda: overload(server, given.times, given.seconds, given.tokens),
        "leavers": lambda: leavers(server, given.clients, given.tokens),
        "slow": lambda: slow(server, given.seconds, given.tokens),
        "stalled": lambda: stalled(server, given.seconds, given.tokens),
        "long": lambda: long(server, given.clients, given.tokens),
    }
    try:
        wrong = asyncio.run(runs[given.what]())
    finally:
        files, code = server.files, server.end()
    print(f"open files at the end {files}; the server left with {code}")
    for each in wrong + ([f"exit {code}"] if code else []):
        print(f"MISSED: {each}")
    return int(bool(wrong or code))


if __name__ == "__main__":
    sys.exit(main())
