"""The two text protocols that training text, mends and tests must agree on: passages, and calls to a calculator."""

import re
from collections.abc import Sequence

CALCULATOR_HINT = "Use the calculator: write <<sum>>."
CALL = re.compile(r"<<([^<>=\n]{1,200})=?$")  # an opened call at the end of what was written so far


def with_passages(question: str, passages: Sequence[str]) -> str:
    """A question with the passages to read before it."""
    return "Context: " + " ".join(passages) + "\nQuestion: " + question


def with_calculator(question: str) -> str:
    """A question with the leave to write calls such as `<<12 + 34=46>>`; what stands after `=` is filled in."""
    return f"{CALCULATOR_HINT} {question}"
