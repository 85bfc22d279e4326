"""The routes beside writing: embeddings, tokens, scores, records."""

import base64
import struct
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from qualm.cases import Prompt
from qualm.serving.answering import here, model
from qualm.serving.echoed import of_ids
from qualm.serving.errors import Refusal
from qualm.serving.house import House
from qualm.serving.schema import DetokenizeBody, EmbeddingBody, Pair, ScoreBody, TokenizeBody
from qualm.serving.served import Served
from qualm.serving.tools import Tools

MOST_CASES = 500  # of a record, at a time
Name = Annotated[str, Path(max_length=1024)]
Refused = dict[int | str, dict[str, Any]]


def routes(app: FastAPI, house: House, refused: Refused) -> None:
    reading(app, house, refused)
    tokens(app, house, refused)
    records(app, house, refused)


def reading(app: FastAPI, house: House, refused: Refused) -> None:
    """The routes that read texts."""

    @app.post("/v1/embeddings", responses=refused)
    async def embeddings(request: Request, body: EmbeddingBody) -> dict[str, Any]:
        """A vector a text, of length 1."""
        served = model(house, request, body)
        served.needs("embed", "embed texts")
        texts = [body.input] if isinstance(body.input, str) else list(body.input)
        vectors = await here(request, lambda: served.worker.do(lambda: served.lm.embed(texts).tolist()))
        packed = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": pack(each) if packed else each}
            for i, each in enumerate(vectors)
        ]
        count = sum(map(len, served.tokens.encode_many(texts))) if served.local else 0
        counted = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": served.name, "usage": counted}

    @app.post("/v1/score", responses=refused)
    async def score(request: Request, body: ScoreBody) -> dict[str, Any]:
        """log p(continuation | context) in nats, a number a token; null where it could not be read."""
        served = model(house, request, body)
        served.needs("score", "tell log-probabilities of a given text")
        pairs = [(prompt_of(pair), pair.continuation) for pair in body.pairs]
        scored = await here(request, lambda: served.worker.do(lambda: served.lm.score(pairs)))
        data = [
            {"index": i, "logprobs": None if each.unread else list(each.logprobs), "why": each.why}
            for i, each in enumerate(scored)
        ]
        return {"object": "list", "data": data, "model": served.name}


def tokens(app: FastAPI, house: House, refused: Refused) -> None:
    """The routes of the tokenizer."""

    @app.post("/v1/tokenize", responses=refused)
    @app.post("/tokenize", responses=refused, include_in_schema=False)
    async def tokenize(request: Request, body: TokenizeBody) -> dict[str, Any]:
        """The tokens that a model reads for a text, or for messages. Markers spelled in either are text."""
        served = model(house, request, body)
        if (body.prompt is None) == (body.messages is None):
            raise Refusal(400, "give prompt or messages", param="prompt", code="invalid_value")
        ids = cut(served, body)
        limit = served.local.context if served.local else 0
        return {"tokens": ids, "count": len(ids), "max_model_len": limit}

    @app.post("/v1/detokenize", responses=refused)
    @app.post("/detokenize", responses=refused, include_in_schema=False)
    async def detokenize(request: Request, body: DetokenizeBody) -> dict[str, str]:
        served = model(house, request, body)
        return {"prompt": of_ids(served.tokens, body.tokens).text if body.tokens else ""}


def records(app: FastAPI, house: House, refused: Refused) -> None:
    """The routes of audits and proofs."""

    @app.get("/v1/audits", responses=refused)
    def audits() -> dict[str, Any]:
        """The records there are."""
        return {"object": "list", "data": house.audits.list()}

    @app.get("/v1/audits/{name}", responses=refused)
    def audit(name: Name) -> dict[str, Any]:
        """What a record's record.json holds."""
        return house.audits.record(name)

    @app.get("/v1/audits/{name}/cases", responses=refused)
    def cases(
        name: Name,
        probe: Annotated[str, Query(max_length=100)] = "",
        start: Annotated[int, Query(ge=0, le=10**9)] = 0,
        count: Annotated[int, Query(ge=1, le=MOST_CASES)] = 100,
    ) -> dict[str, Any]:
        """Cases of a record, with what was read off each."""
        return house.audits.cases(name, probe, start, count)

    @app.get("/v1/audits/{name}/report", responses={**refused, 200: {"content": {"text/html": {}}}})
    def report(name: Name) -> Response:
        """The page that lies beside a record, for a frame without rights of its own."""
        policy = "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        headers = {"content-security-policy": f"{policy}; img-src data:; font-src data:"}
        return Response(house.audits.report(name), media_type="text/html; charset=utf-8", headers=headers)


def prompt_of(pair: Pair) -> Prompt:
    return pair.context if isinstance(pair.context, str) else Tools().told(pair.context)


def cut(served: Served, body: TokenizeBody) -> list[int]:
    if body.messages is not None:
        return served.tokens.encode_prompt(Tools().told(body.messages))
    assert body.prompt is not None
    start = served.tokens.start if body.add_special_tokens else ()
    return [*start, *served.tokens.encode(body.prompt)]


def pack(vector: list[float]) -> str:
    """As OpenAI's client unpacks it: little-endian floats in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
