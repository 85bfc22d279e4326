"""`qualm advise`: what to train, or what to start from."""

import re
from typing import TYPE_CHECKING

from rich.table import Table

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.memory import keep_memory
from qualm.cli.train import size_of
from qualm.errors import UsageError

if TYPE_CHECKING:
    from qualm.training.advice import Advice


def advise(
    *,
    task: str = "text",
    language: str = "en",
    tokens: str = "5M",
    hours: float = 2.0,
    memory: str = "",
    common: Common = Common(),
) -> None:
    """Say what to train on this machine, or what to start from, and why. Takes some seconds of measuring.

    Args:
        task: text (continue a text), chat, classify, tag, qa or seq2seq.
        language: Of the text: en, zh, ...
        tokens: Tokens of text there are; one is about 4 bytes of English.
        hours: Time for training.
        memory: Memory that may be used, such as 8GB; by default what is free.
    """
    keep_memory()  # as `qualm train` will: steps are timed
    allowed = bytes_of(memory) if memory else 0.0
    wish = rooms.advice.Wish(task, language, number(tokens), hours, allowed)
    given = rooms.advice.advise(wish)
    common.result(given.document(), shown(given))
    common.remark(f"beware: {rooms.advice.WARNING}")


def number(text: str) -> float:
    """ "5M" as 5e6."""
    found = size_of(text)
    if isinstance(found, str):
        raise UsageError(f"{text!r} is no number", where="tokens", then="say 5M or 800k")
    return float(found)


def bytes_of(text: str) -> float:
    """ "8GB" as 8e9."""
    found = re.fullmatch(r"([0-9.]+) ?([kmg]?)b?", text.lower())
    if not found:
        raise UsageError(f"{text!r} is no amount of memory", where="memory", then="say 8GB")
    return float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[found[2]]


def shown(given: "Advice") -> Table:
    plan, machine = given.plan, given.machine
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    rows = [
        ("do", given.command),
        *(("because" if i == 0 else "", reason) for i, reason in enumerate(given.reasons)),
        ("model", f"{plan.family}, {plan.parameters:,} parameters, {plan.step_flops / 1e9:.1f} GFLOP a step"),
        ("time", f"{plan.seconds / 60:.0f} minutes for {plan.steps:,} steps, as measured here"),
        ("memory", f"{plan.memory / 1e9:.1f} GB of {machine.memory / 1e9:.1f} GB"),
        ("machine", f"{machine.threads} threads, {machine.precision}, {machine.peak / 1e9:.0f} GFLOP/s"),
    ]
    for name, what in rows:
        table.add_row(name, what)
    return table
