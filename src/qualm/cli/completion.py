"""`qualm --install-completion`: tab completion for a shell."""

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.completion.detect import ShellDetectionError

from qualm.cli.app import build
from qualm.errors import UsageError

Shell = Literal["bash", "zsh", "fish"]


def completion(*, shell: Annotated[Shell | None, Parameter(name=["--shell", "-s"])] = None) -> None:
    """Install tab completion.

    Args:
        shell: Which shell; by default the one this is typed in.
    """
    try:
        print(build().install_completion(shell=shell))
    except ShellDetectionError as error:
        raise UsageError(str(error), then="name the shell: qualm --install-completion --shell bash") from error
