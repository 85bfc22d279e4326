"""`qualm chat`: a conversation, or one question."""

import sys
from typing import Annotated

from cyclopts import Parameter

from qualm.cases import Message
from qualm.cli.common import Common
from qualm.cli.generate import SAMPLING, check, explained
from qualm.cli.models import load
from qualm.lm.base import LM, Sampling

LEAVE, FORGET = {"/exit", "/quit", "/bye"}, {"/new", "/reset"}


@explained
def chat(
    model: str,
    /,
    *,
    prompt: Annotated[str | None, Parameter(name=["--prompt", "-p"], allow_leading_hyphen=True)] = None,
    system: str | None = None,
    sampling: Annotated[Sampling, Parameter(name="*", group=SAMPLING)] = Sampling(),
    common: Common = Common(),
) -> None:
    """Talk with a model. /new forgets what was said, /exit (or Ctrl-D) leaves, Ctrl-C ends an answer.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        prompt: Put this one question, print the answer and leave; - reads it from stdin.
        system: What the model is told before the first question.
    """
    check(sampling)
    lm = load(model, common)
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    if prompt is None and not common.json:
        converse(lm, before, sampling, common)
        return
    question = sys.stdin.read().strip() if prompt in (None, "-") else prompt
    answer = lm.generate([[*before, {"role": "user", "content": question}]], sampling)[0].read()
    told = {"question": question, "answer": answer.text, "finish": answer.finish, "tokens": answer.tokens}
    document = {"schema": "qualm.chat/1", "model": lm.name, **told, "notes": dict(answer.notes)}
    common.result(document, answer.text)


def converse(lm: LM, before: list[Message], sampling: Sampling, common: Common) -> None:
    """Question and answer by turns until the end of stdin. Each question stands with all that was said before."""
    said = list(before)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        common.remark(f"{lm.name}: /new forgets, /exit leaves, Ctrl-C ends an answer")
    while (question := ask(at_terminal)) is not None:
        if question in LEAVE:
            return
        if question in FORGET:
            said = list(before)
        elif question:
            said.append({"role": "user", "content": question})
            said.append({"role": "assistant", "content": answer(lm, said, sampling)})


def ask(at_terminal: bool) -> str | None:
    """The next line a person types; None at the end.

    Not by `input` from a pipe: it flushes the output first and hides what is raised then, a SIGTERM too.
    """
    if not at_terminal:
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        return input("> ").strip()
    except EOFError:
        return None


def answer(lm: LM, said: list[Message], sampling: Sampling) -> str:
    """Print the answer as it comes; Ctrl-C cuts it short and keeps what there is."""
    pieces = []
    try:
        for piece in lm.stream(said, sampling):
            pieces.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print(flush=True)
    return "".join(pieces)
