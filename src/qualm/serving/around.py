"""What stands around every request: its id, the size of its body, who asks and how often, the log line at the end."""

import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qualm.serving.admission import Bucket
from qualm.serving.errors import Busy, Refusal
from qualm.serving.house import House
from qualm.serving.keys import Key
from qualm.serving.logs import access

ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
OPEN = frozenset({"/health"})  # for everyone
PAGE = "/page/"  # the files of the page: they are in the package, and hold no secret
ASKING = frozenset({"/v1/chat/completions", "/v1/completions"})  # not read where there is no room for any answer
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"})
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))


class Around:
    """The ASGI application `app` behind the keys and limits of `house`."""

    def __init__(self, app: ASGIApp, house: House):
        self.app, self.house = app, house
        self.buckets = {key.name: Bucket(key.per_minute) for key in house.keys.keys if key.per_minute}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, started = Headers(scope=scope), time.monotonic()
        given = headers.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else secrets.token_hex(12)
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "key": None, "ignored": []}
        status, more = 0, dict[str, str]()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                decorate(message, request_id, more, state["ignored"])
            await send(message)

        try:
            try:
                more |= self._let_in(scope, headers)
                await self.app(scope, limited(receive, self.house.limits.body), sending)
            except Refusal as refusal:
                more |= {"connection": "close"} if refusal.status in (400, 413, 503) else {}
                await refusal.response(request_id)(scope, receive, sending)
        finally:
            self._log(scope, status, time.monotonic() - started)

    def _let_in(self, scope: Scope, headers: Headers) -> dict[str, str]:
        """Headers to answer with. Raises Refusal for who has no key, asks too often or sends too much."""
        path, more = scope["path"], dict[str, str]()
        if self.house.crowded():
            raise Busy("too many connections are open", 5, status=503, code="too_many_connections")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise Refusal(400, "the body says its length in two ways", code="invalid_http")  # a way to smuggle one
        if self.house.keys and path not in OPEN and not (path == "/" or path.startswith(PAGE)):
            more = self._known(scope, headers)
        if path in ASKING:
            self.house.room()
        size = headers.get("content-length", "")
        if size.isdecimal() and int(size[:20]) > self.house.limits.body:
            raise too_large()
        return more

    def _known(self, scope: Scope, headers: Headers) -> dict[str, str]:
        key = self.house.keys.holder(headers.get("authorization", ""))
        if key is None:
            raise Refusal(401, "give a key that this server knows: Authorization: Bearer KEY", code="invalid_api_key")
        scope["state"]["key"] = key
        bucket = self.buckets.get(key.name)
        if bucket is None:
            return {}
        bucket.take()
        return bucket.headers()

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        key: Key | None = scope["state"]["key"]
        route = getattr(scope.get("route"), "path", "") or ("/" if scope["path"] == "/" else "other")
        self.house.metrics.requests.labels(route, status).inc()
        told = {
            "request_id": scope["state"]["request_id"],
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            "key": key.name if key else None,
            "model": scope["state"].get("model"),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        access.info("answered" if status else "the client went", extra=told)


def too_large() -> Refusal:
    return Refusal(413, "the body is larger than this server takes", code="body_too_large")


def limited(receive: Receive, most: int) -> Receive:
    """`receive`, up to `most` bytes of body. Raises HTTPException 413 beyond."""
    size = 0

    async def receiving() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413)
        return message

    return receiving


def decorate(message: Message, request_id: str, more: dict[str, str], ignored: list[str]) -> None:
    """Put the headers of every answer on this one."""
    headers = MutableHeaders(scope=message)
    headers["x-request-id"] = request_id
    for name, value in SAFE:
        headers.setdefault(name.decode(), value.decode())
    for name, value in more.items():
        headers[name] = value
    if ignored:
        names = [name for name in ignored if ID.fullmatch(name)]
        headers["x-qualm-ignored"] = ", ".join(names[:20]) or "fields"
