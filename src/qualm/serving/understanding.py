"""The routes for people who want to know what an answer rests on: knowledge bases, and explanations."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from starlette.concurrency import run_in_threadpool

from qualm.inside.occlusion import explain
from qualm.serving.answering import here, model
from qualm.serving.house import House
from qualm.serving.knowledge import owner
from qualm.serving.schema import ExplainBody
from qualm.serving.tools import Tools

Name = Annotated[str, Path(max_length=256)]
Refused = dict[int | str, dict[str, Any]]


def routes(app: FastAPI, house: House, refused: Refused) -> None:
    knowledge(app, house, refused)

    @app.post("/v1/explain", responses=refused)
    async def why(request: Request, body: ExplainBody) -> dict[str, Any]:
        """Which words of the last question an answer rests on, in nats, and how far that is to be believed."""
        served = model(house, request, body)
        served.needs("score", "tell log-probabilities of a given text")
        if body.answer is None:
            served.needs("generate", "answer, so an answer must be given")
        prompt = Tools().told(body.messages)
        work = lambda: explain(served.lm, prompt, body.answer or "", body.seed)  # noqa: E731
        found = await here(request, lambda: served.worker.do(work))
        tested = found.faithfulness
        random = {name: getattr(tested, name) for name in ("mean", "low", "high", "draws")}
        faithfulness = {"count": tested.count, "hottest": tested.hottest, "random": random, "shown": tested.shown}
        words = [asdict(word) for word in found.words]
        said = {"object": "explanation", "model": served.name, "text": found.text, "answer": found.answer}
        return {**said, "words": words, "faithfulness": faithfulness}


def knowledge(app: FastAPI, house: House, refused: Refused) -> None:
    """The routes of knowledge bases."""

    @app.get("/v1/knowledge", responses=refused)
    def bases(request: Request) -> dict[str, Any]:
        """The knowledge bases of who asks."""
        return {"object": "list", "data": [base.told() for base in house.knowledge.bases(owner(request))]}

    @app.put("/v1/knowledge/{base}/{file}", responses=refused)
    async def put(request: Request, base: Name, file: Name) -> dict[str, Any]:
        """Add the body as a file; its name says what kind it is."""
        content, who = await request.body(), owner(request)
        return (await run_in_threadpool(house.knowledge.put, who, base, file, content)).told()

    @app.delete("/v1/knowledge/{base}/{file}", responses=refused)
    def remove(request: Request, base: Name, file: Name) -> dict[str, Any]:
        """Take a file out."""
        return house.knowledge.remove(owner(request), base, file).told()
