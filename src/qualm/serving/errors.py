"""Refusals in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, whatever went wrong.

What a request holds can only bring a 4xx; a 5xx is a fault of ours, an overload, or a server that is closing.
"""

import re
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from qualm.errors import MissingExtra, QualmError, TooLong

KINDS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}  # the rest are "invalid_request_error" below 500, "server_error" from there on
WORDS: Mapping[int, tuple[str, str]] = {
    404: ("nothing is served at this address", "not_found"),
    405: ("this address does not take that method", "method_not_allowed"),
    413: ("the body is larger than this server takes", "body_too_large"),
}
TOO_LONG = "context length exceeded"  # words that clients look for
NO_MEMORY = "out_of_memory"
LONGEST = 2000  # characters of a message
SPENT = re.compile(r"can't allocate memory|out of memory")  # in what torch says


class Refusal(Exception):
    """An answer that is none: its status, and why. `retry_after` is in seconds, 0 where trying again does not help."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str = "", retry_after: int = 0):
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code, self.retry_after = code, retry_after

    def document(self, request_id: str = "") -> dict[str, Any]:
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        message = clean(self.message)
        if self.status >= 500 and request_id:
            message = f"{message} (request {request_id})"
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code or None}}

    def response(self, request_id: str = "") -> JSONResponse:
        headers = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.document(request_id), self.status, headers)


class Busy(Refusal):
    """There is no room now: 429, or 503 while the server is closing."""

    def __init__(self, message: str, retry_after: int, status: int = 429, code: str = "queue_full"):
        super().__init__(status, message, code=code, retry_after=max(1, retry_after))


def clean(text: str) -> str:
    """A message that any encoder takes: half characters replaced, not longer than LONGEST."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told of an error. Of what is no error of the client's only that it happened."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TooLong):
        return Refusal(400, f"{error.what}: {TOO_LONG}", param="prompt", code=TOO_LONG.replace(" ", "_"))
    if isinstance(error, MissingExtra):
        return Refusal(503, "the engine behind this server does not answer", code="engine_unreachable", retry_after=5)
    if isinstance(error, QualmError):
        return Refusal(400, f"{error.what}; {error.then}" if error.then else error.what)
    if is_spent(error):
        return Busy("there is no memory for it now; ask for less, or again later", 5, status=503, code=NO_MEMORY)
    return Refusal(500, "something went wrong here", code="internal_error")


def is_spent(error: BaseException) -> bool:
    """Whether memory ran out: torch says that by a RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(SPENT.search(str(error))))


def of_validation(error: RequestValidationError) -> Refusal:
    """The first thing that is wrong with a body, and where; nothing of the body itself is sent back."""
    found = error.errors()[0]
    place = [str(part) for part in found["loc"] if part not in ("body", "query", "path", "header")]
    names = [part for part in place if not part.startswith(("function-", "list[", "constrained-", "lax-or-strict"))]
    where = clean(".".join(names))[:200]
    if found["type"] == "json_invalid":
        return Refusal(400, "the body is not JSON", code="invalid_json")
    if found["type"] == "missing" and not names:
        return Refusal(400, "the body is missing, or is not declared as application/json", code="missing_body")
    return Refusal(400, f"{where or 'body'}: {found['msg']}", param=where or None, code="invalid_value")


def of_http(error: HTTPException) -> Refusal:
    message, code = WORDS.get(error.status_code, (str(error.detail), ""))
    if error.status_code == 400:
        message, code = "the body cannot be read as JSON", "invalid_json"
    return Refusal(error.status_code, message, code=code)
