"""The parts that replies are made of, in OpenAI's shapes; what is ours alone stands under "qualm"."""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qualm.lm.base import Completion
from qualm.lm.batch import Delta, Token
from qualm.serving.served import Served

Json = dict[str, Any]
PASSAGE = ("id", "text", "score")


def head(prefix: str, kind: str, served: Served) -> Json:
    """What every reply and every piece of one begins with."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.fingerprint,
    }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def tokens_of(deltas: Iterable[Delta]) -> list[Token]:
    return [token for delta in deltas for token in delta.tokens]


def finish_of(completion: Completion) -> str:
    return completion.finish if completion.finish in ("stop", "length") else "stop"


def chat_logprobs(tokens: Sequence[Token], top: int) -> Json | None:
    """The shape of chat: an entry a token. None where the model tells no tokens."""
    if not tokens:
        return None
    content = [
        {
            "token": token.text,
            "logprob": token.logprob,
            "bytes": list(token.bytes),
            "top_logprobs": [
                {"token": text, "logprob": logprob, "bytes": list(text.encode())} for text, logprob in token.top[:top]
            ],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def legacy_logprobs(tokens: Sequence[Token], top: int, offset: int = 0) -> Json | None:
    """The shape of completions: a list for each kind of thing. `offset` is where the first token begins."""
    if not tokens:
        return None
    offsets, at = [], offset
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [likeliest(token.top, top, token) for token in tokens] if top else None,
        "text_offset": offsets,
    }


def likeliest(ranked: Sequence[tuple[str, float]], top: int, token: Token) -> dict[str, float]:
    """The `top` likeliest tokens of a place by their text, and the one that stands there."""
    found: dict[str, float] = {}
    for text, logprob in ranked[:top]:
        found.setdefault(text, logprob)
    found.setdefault(token.text, token.logprob)
    return found


def ours(completion: Completion, tokens: Sequence[Token] = (), told: bool = False) -> Json:
    """{"qualm": ...}: what a mend did on the way; {} if there is nothing to say.

    `told`: log-probabilities were asked for; they stand here, bare, where a model does not tell its tokens.
    """
    said = {name: _plain(value) for name, value in completion.notes.items() if name != "others"}
    if "passages" in said:
        said["passages"] = [dict(zip(PASSAGE, passage, strict=False)) for passage in said["passages"]]
    if "calls" in said:
        said["calls"] = [dict(zip(("expression", "result"), call, strict=False)) for call in said["calls"]]
    if told and not tokens and completion.logprobs:
        said["logprobs"] = list(completion.logprobs)
    return {"qualm": said} if said else {}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
