"""JSON over HTTP with bounded patience: what can pass is tried again, what cannot is raised at once.

It knows nothing of language models. Proxies and redirects are not followed: the address is where text goes.
"""

import http.client
import json
import random
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.parse import urlsplit

from qualm.errors import QualmError, Unreachable, UsageError

FIRST_WAIT = 0.5  # seconds before the second try; doubled before each further one
LONGEST_WAIT = 60.0  # seconds, also for Retry-After
CONNECT_TIMEOUT = 10.0  # seconds
LARGEST_ANSWER = 64 * 2**20  # bytes
GIVE_UP = 16  # requests lost one after another

Json = Mapping[str, Any]


class Refused(QualmError):
    """The server understood and said no (4xx): trying again would not help."""

    def __init__(self, status: int, message: str, *, where: str, then: str = ""):
        super().__init__(f"the server answered {status}: {message}", where=where, then=then)
        self.status, self.message = status, message


class Lost(QualmError):
    """No answer to this one request after the bounded number of tries; others may still be answered."""


@dataclass(frozen=True)
class Answer:
    """One answer; `response` and `connection` are set if it is a stream, whose body is still to come."""

    status: int
    body: bytes
    retry_after: float
    response: http.client.HTTPResponse | None = None
    connection: http.client.HTTPConnection | None = None


class Wire:
    """Requests to one base address, from any number of threads, over connections that are kept open.

    Time-outs, broken connections, 408, 429 and 5xx are tried again `retries` times, after an exponentially
    growing wait or what Retry-After asks for, then raised as Lost. A server that cannot be connected to, or
    that loses GIVE_UP requests in a row, raises Unreachable.
    """

    def __init__(self, url: str, *, key: str = "", timeout: float = 60.0, retries: int = 4):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is not an http address", then="write it as http://host:port/v1")
        if parts.username or parts.password:
            raise UsageError("the address holds a password", then="leave it out and give it as the key")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.timeout, self.retries = timeout, retries
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._idle: deque[http.client.HTTPConnection] = deque()
        weakref.finalize(self, close_all, self._idle)
        self._lock = threading.Lock()
        self._lost = 0
        self._reached = False

    def get(self, path: str) -> Json:
        """The JSON object at `path`."""
        return self._json(self._patiently("GET", path, None).body, path)

    def post(self, path: str, body: Json) -> Json:
        """The JSON object answered to `body`. Raises Refused, Lost or Unreachable."""
        return self._json(self._patiently("POST", path, body).body, path)

    def events(self, path: str, body: Json) -> Iterator[Json]:
        """The JSON objects of a stream of server-sent events, up to its [DONE].

        Only its start is tried again: what was already handed out cannot be taken back.
        """
        answer = self._patiently("POST", path, body, stream=True)
        return self._events(answer, path)

    def _events(self, answer: Answer, path: str) -> Iterator[Json]:
        assert answer.response is not None
        assert answer.connection is not None
        try:
            for line in answer.response:
                if line.startswith(b"data:"):
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    yield self._json(data, path)
            raise QualmError("the stream broke off before its end", where=self.url + path, then="ask again")
        except (OSError, http.client.HTTPException) as error:
            raise QualmError(f"the stream broke off ({error})", where=self.url + path, then="ask again") from error
        finally:
            answer.connection.close()

    def _patiently(self, method: str, path: str, body: Json | None, stream: bool = False) -> Answer:
        """The answer 200 to a request, its body still unread if it is a stream."""
        problem, asked = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                wait = FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                time.sleep(min(max(wait, asked), LONGEST_WAIT))
            try:
                answer = self._once(method, path, body, stream)
            except Unreachable:
                if not self._reached or attempt == self.retries:
                    raise
                continue
            except (OSError, http.client.HTTPException) as error:
                problem, asked = f"{type(error).__name__} {error}".strip(), 0.0
                continue
            if answer.status == 200:
                self._note(answered=True)
                return answer
            if answer.status not in (408, 429, *range(500, 600)) or answer.status == 501:
                message = message_of(answer.body)
                raise Refused(answer.status, message, where=self.url + path, then=hint(answer.status))
            problem, asked = f"{answer.status}: {message_of(answer.body)}", answer.retry_after
        self._note(answered=False, problem=problem)
        raise Lost(f"no answer in {self.retries + 1} tries (last: {problem})", where=self.url + path)

    def _once(self, method: str, path: str, body: Json | None, stream: bool) -> Answer:
        payload = None if body is None else json.dumps(body, allow_nan=False).encode()
        while True:
            connection, fresh = self._connection()
            try:
                connection.request(method, self._path + path, payload, self._headers)
                response = connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if fresh:
                    raise
                continue  # a connection kept open may have been closed meanwhile: that is no failure
            except BaseException:
                connection.close()
                raise
            status, asked = response.status, seconds_asked(response.getheader("Retry-After"))
            if stream and status == 200:
                return Answer(status, b"", asked, response, connection)
            try:
                answer = Answer(status, self._read(response), asked)
            except BaseException:
                connection.close()
                raise
            if connection.sock is not None:
                self._idle.append(connection)
            return answer

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """An open connection, and whether it is new. Raises Unreachable."""
        with suppress(IndexError):
            return self._idle.pop(), False
        patience = min(CONNECT_TIMEOUT, self.timeout)
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=patience)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=patience, context=self._tls)
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._unreachable(f"cannot connect ({error})") from error
        connection.timeout = self.timeout
        connection.sock.settimeout(self.timeout)
        return connection, True

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body within the time-out and LARGEST_ANSWER, whatever the pace it comes at."""
        deadline, pieces, size = time.monotonic() + self.timeout, [], 0
        while piece := response.read1(2**16):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > deadline:
                raise TimeoutError("the answer did not end in time")
            if size > LARGEST_ANSWER:
                raise QualmError(f"an answer of more than {LARGEST_ANSWER} bytes", where=self.url)
        if response.length:  # fewer bytes than were announced
            raise http.client.IncompleteRead(b"".join(pieces), response.length)
        response.close()  # or the connection cannot be used again
        return b"".join(pieces)

    def _note(self, *, answered: bool, problem: str = "") -> None:
        with self._lock:
            self._reached = self._reached or answered
            self._lost = 0 if answered else self._lost + 1
            lost = self._lost
        if lost >= GIVE_UP:
            raise self._unreachable(f"none of the last {lost} requests was answered (last: {problem})")

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(what, where=self.url, then=f"start the server, or see what it says: curl {self.url}/models")

    def _json(self, data: bytes, path: str) -> Json:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise QualmError(
                f"this is no JSON object: {data[:60]!r}", where=self.url + path, then="does the address end in /v1?"
            )
        return value


def close_all(connections: deque[http.client.HTTPConnection]) -> None:
    with suppress(IndexError):
        while True:
            connections.pop().close()


def seconds_asked(header: str | None) -> float:
    """What a Retry-After header asks for: seconds, or a date; 0 if there is none that can be read."""
    if not header:
        return 0.0
    with suppress(ValueError):
        return max(0.0, float(header))
    date = parsedate_tz(header)
    return max(0.0, mktime_tz(date) - time.time()) if date else 0.0


def message_of(answer: bytes) -> str:
    """What a server says is wrong, in any of the shapes in use, in one line."""
    text = answer.decode(errors="replace")
    with suppress(ValueError):
        value = json.loads(text)
        for name in ("error", "message", "detail"):
            if isinstance(value, dict) and value.get(name):
                value = value[name]
        text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split())[:300] or "no message"


def hint(status: int) -> str:
    if status in (401, 403):
        return "give the key it asks for"
    if 300 <= status < 400:
        return "give the address it points to"
    return ""
