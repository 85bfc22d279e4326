"""The errors a user can mend: what is wrong, where, and the next command to type.

The command line prints one as a single line and exits with its `exit_code`; anything else is our bug and
keeps its traceback.
"""

from typing import ClassVar


class QualmError(Exception):
    """Something the user can mend.

    `what` says what is wrong, `where` names the file, row or field, `then` is the next command or act.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", then: str = ""):
        super().__init__(what, where, then)
        self.what, self.where, self.then = what, where, then

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.then}" if self.then else line


class UsageError(QualmError):
    """A wrong word, flag or setting."""

    exit_code = 2


class GateError(QualmError):
    """A gate that was asked for is not met (`--fail-on worse`)."""

    exit_code = 3


class InputError(QualmError):
    """A file or folder that cannot be used: missing, cut off, damaged, of a refused kind, or at odds with another."""

    exit_code = 4


class MissingExtra(QualmError):
    """An optional package or an outside engine is not there; `then` names the command that brings it."""

    exit_code = 5


class Unreachable(MissingExtra):
    """An endpoint does not answer, after the bounded number of tries."""


class Unsupported(QualmError):
    """This model cannot do what was asked. An audit records it as "not measured", with this reason."""


class TooLong(Unsupported):
    """A prompt longer than the model can look at: one unread case of a batch, and the end of a request of its own."""


class Stopped(QualmError):
    """Stopped on request after saving; the same command goes on from there."""

    exit_code = 75
