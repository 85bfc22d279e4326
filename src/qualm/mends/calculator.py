"""A calculator: the model writes the call, a real one writes the result (PAL, Gao et al. 2023, arXiv 2211.10435).

Mends arithmetic. The protocol is plain text, so any model that writes can use it: `<<12 + 34=` is a call, and what the
calculator makes of it is put behind it, `46>>`, whatever the model itself would have put there. Then the model goes on.
Only conversations are touched, and of these only those whose last question holds at least two numbers.
Misses: a model that puts the wrong sum into the call.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from qualm.cases import Message
from qualm.errors import UsageError
from qualm.lm.base import LM, Completion, Prompt, Sampling
from qualm.mends.base import Mend, Mended, question_of, with_question
from qualm.text.arithmetic import Refused, evaluate
from qualm.text.prompts import CALL, with_calculator

SHOTS = (  # with three digits or more, so that no example answers a sum of two
    ("What is 512 + 346?", "<<512 + 346=858>>858"),
    ("A box holds 144 eggs. How many eggs are in 3 boxes?", "<<144 * 3=432>>432"),
    ("How much is 905 - 618?", "<<905 - 618=287>>287"),
    ("Share 1050 apples among 7 people. How many does each get?", "<<1050 / 7=150>>150"),
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CLOSED = re.compile(r"<<[^<>=\n]{1,200}=")  # where the model begins to write a result of its own
NOT_COMPUTED = "?"


@dataclass(frozen=True)
class Calculator(Mend):
    """Up to `rounds` calls an answer.

    `shots` worked examples stand before the question; None means none for a model of a planted world, which was
    trained on the protocol, and two for any other. `offset` is added to every result: with a calculator that is wrong
    on purpose, answers that hang on it must be wrong too.
    """

    rounds: int = 4
    shots: int | None = None
    offset: int = 0

    mends: ClassVar[frozenset[str]] = frozenset({"arithmetic"})
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 <= (self.shots or 0) <= len(SHOTS):
            raise UsageError(f"rounds must be at least 1 and shots from 0 to {len(SHOTS)}", where="Calculator")

    def __call__(self, lm: LM) -> LM:
        shots = self.shots if self.shots is not None else (0 if lm.card.world else 2)
        return WithCalculator(lm, self, shots)


@dataclass
class _Answer:
    """An answer in the making: what stands written, the calls in it, and what the model was asked for so far."""

    prompt: list[Message]
    written: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    stretches: list[Completion] = field(default_factory=list)
    done: bool = False

    def ask(self) -> list[Message]:
        """The conversation up to here; a last message of the assistant's is to be gone on with."""
        return [*self.prompt, {"role": "assistant", "content": self.written}] if self.written else self.prompt

    def completion(self) -> Completion:
        """What stands behind the last call is the answer; if nothing does, its result is."""
        last = self.stretches[-1]
        if last.unread:
            return last
        text = self.written.rpartition(">>")[2].strip() if self.calls else self.written
        notes = {**last.notes, "calls": tuple(self.calls), "written": self.written} if self.calls else last.notes
        return replace(
            last,
            text=text or (self.calls[-1][1] if self.calls else ""),
            prompt_tokens=self.stretches[0].prompt_tokens,
            tokens=sum(s.tokens for s in self.stretches),
            notes=notes,
        )


class WithCalculator(Mended):
    """Cuts an answer off at each call, puts the result there, and has `inner` go on.

    `max_tokens` bounds each stretch between calls, and so the answer behind the last one. Tokens that the model wrote
    behind a call are thrown away, and counted.
    """

    def __init__(self, inner: LM, mend: Calculator, shots: int):
        super().__init__(inner, mend, repr(replace(mend, shots=shots)))
        self.rounds, self.offset = mend.rounds, mend.offset
        self.examples: list[Message] = []
        for question, answer in SHOTS[:shots]:
            self.examples.append({"role": "user", "content": with_calculator(question)})
            self.examples.append({"role": "assistant", "content": answer})

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        answers = {i: _Answer(self._ask(prompt)) for i, prompt in enumerate(prompts) if needs_calculator(prompt)}
        others = [i for i in range(len(prompts)) if i not in answers]
        found = dict(zip(others, self.inner.generate([prompts[i] for i in others], sampling), strict=True))
        for spent in range(self.rounds + 1):
            going = [answer for answer in answers.values() if not answer.done]
            if not going:
                break
            for answer, wrote in zip(going, self.inner.generate([a.ask() for a in going], sampling), strict=True):
                self._add(answer, wrote, may_call=spent < self.rounds)
        return [answers[i].completion() if i in answers else found[i] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        return super().stream(prompt, sampling) if needs_calculator(prompt) else self.inner.stream(prompt, sampling)

    def _ask(self, prompt: Prompt) -> list[Message]:
        """Worked examples behind the system message, then the conversation with the leave to call."""
        messages = with_question(prompt, with_calculator(question_of(prompt)))
        system = sum(m["role"] == "system" for m in messages[:1])
        return [*messages[:system], *self.examples, *messages[system:]]

    def _add(self, answer: _Answer, wrote: Completion, may_call: bool) -> None:
        answer.stretches.append(wrote)
        closed = _CLOSED.search(wrote.text)
        text = wrote.text[: closed.end()] if closed else wrote.text
        call = CALL.search(text)
        if not may_call or not call or (not closed and wrote.finish != "stop"):
            answer.written, answer.done = answer.written + wrote.text, True
            return
        result = self._compute(call[1])
        answer.calls.append((call[1].strip(), result))
        answer.written += f"{text.removesuffix('=')}={result}>>"

    def _compute(self, expression: str) -> str:
        try:
            return evaluate(f"({expression}) + ({self.offset})" if self.offset else expression)
        except Refused:
            return NOT_COMPUTED


def needs_calculator(prompt: Prompt) -> bool:
    """A conversation in which the user spoke last and named at least two numbers."""
    asks = not isinstance(prompt, str) and bool(prompt) and prompt[-1]["role"] == "user"
    return asks and len(_NUMBER.findall(question_of(prompt))) > 1
