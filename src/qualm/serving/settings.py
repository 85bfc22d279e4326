"""What a server allows: sizes, numbers and times. All of it is bounded."""

from dataclasses import dataclass

from qualm.errors import UsageError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Args:
        rows: Requests that a model answers at once.
        slots: Tokens, read and to be written, that those may come to.
        queue: Requests of a model that may wait beside those; a further one is answered 429.
        body: Bytes of a request's body.
        choices: Answers that one request may ask for, its prompts times n.
        head_seconds: In which the head of a request must have come, and its body again.
        stall_seconds: After which a client that takes nothing of its answer is cut off.
        queue_seconds: After which a request that still waits is answered 503.
        answer_seconds: After which an answer is ended, as by its length.
        drain_seconds: After SIGTERM, in which the answers under way may still be finished.
        connections: Open at once; a further one is answered 503.
    """

    rows: int = 16
    slots: int = 16384
    queue: int = 64
    body: int = 4 * 2**20
    choices: int = 64
    head_seconds: float = 8.0
    stall_seconds: float = 30.0
    queue_seconds: float = 60.0
    answer_seconds: float = 600.0
    drain_seconds: float = 30.0
    connections: int = 1024

    def __post_init__(self) -> None:
        for name in ("rows", "slots", "body", "choices", "connections"):
            if getattr(self, name) < 1:
                raise UsageError(f"must be at least 1, not {getattr(self, name)}", where=name)
        for name in ("queue", "head_seconds", "stall_seconds", "queue_seconds", "answer_seconds", "drain_seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"must not be below 0, not {getattr(self, name)}", where=name)


def check_address(host: str, port: int, guarded: bool) -> None:
    """Raises UsageError for a server that strangers could reach without a key, or at no port."""
    if host not in LOOPBACK and not guarded:
        raise UsageError(
            f"would serve everyone who reaches {host}, without a key",
            where="--host",
            then="add --api-key KEY or --keys FILE, or leave --host out",
        )
    if not 0 <= port < 2**16:
        raise UsageError(f"must lie between 0 and 65535, not {port}", where="--port")
