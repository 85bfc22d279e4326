"""Case and Row: what is put to a model, and what was read off its answer.

They stand below every floor because the planted world writes cases, probes put them, mends learn from them
and the audit keeps them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
Prompt = str | Sequence[Message]  # a string is text to continue; messages are a conversation to answer
Row = Mapping[str, Any]  # numbers read off one case; strings ("answer") are kept for the reader; see `is_read`
WHY = "why"  # the one thing in the row of a case that could not be read: the reason, where it is known

TUNE_SHARE = 0.25  # the share of groups that mends may learn from; never reported on


@dataclass(frozen=True)
class Case:
    """One thing to put to a model, and what is known about it.

    `group` names what the case shares with others (its template, its person): cases of one group are drawn
    together in the bootstrap and fall on the same side of the split. `part` names a sub-population that is
    reported on its own ("taught", "never seen", "8 copies"). `choices`, if any, contain `target`.
    A choice is appended to a string prompt as it stands (so it brings its own leading space); after messages
    it is the assistant's whole answer (no leading space). `extra` is what the grader needs besides.
    """

    id: str
    prompt: Prompt
    target: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""
    part: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """The group, or the case itself if it shares nothing."""
        return self.group or self.id

    @property
    def split(self) -> Literal["tune", "test"]:
        """Decided by the hash of the cluster, so it does not move when cases are added."""
        digest = hashlib.blake2b(self.cluster.encode(), digest_size=8).digest()
        return "tune" if int.from_bytes(digest) < TUNE_SHARE * 2**64 else "test"


def is_read(row: Row) -> bool:
    """Whether anything was read off the case: {} and {"why": ...} are the rows of one that could not be read."""
    return any(key != WHY for key in row)


def ask(question: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return ({"role": "user", "content": question},)


def plain(prompt: Prompt) -> str:
    """A prompt as text for people and for look-ups: the string itself, or the messages' contents by line."""
    return prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
