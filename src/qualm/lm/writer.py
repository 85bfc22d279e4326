"""One answer as its tokens come: which characters are sure, and when it ends."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qualm.lm.answers import Completion, Token
from qualm.lm.batch import Delta
from qualm.lm.sampling import Sampling
from qualm.lm.stops import Stops
from qualm.tokens.detokenizer import Detokenizer
from qualm.tokens.tokenizer import Tokens

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Writer:
    """Knows its end tokens, its stop strings and how long it may get.

    `lead` is left out at the beginning: what the chat template puts before every answer.
    """

    def __init__(self, detokenizer: Detokenizer, sampling: Sampling, ends: frozenset[int], room: int, lead: str = ""):
        self.detokenizer, self.ends, self.lead = detokenizer, ends, lead
        self.stops, self.room = Stops(sampling.stop), min(room, sampling.max_tokens)
        self.raw, self.skip = "", 0 if not lead else -1  # -1: not known yet whether the lead is there
        self.starts: list[int] = []  # where in `raw` each token begins that counts
        self.tokens: list[Token] = []
        self.finish = "" if self.room > 0 else "length"
        self.told, self.handed = 0, 0  # characters of `text` and tokens that `news` gave

    def push(self, token: Token) -> None:
        if token.id in self.ends:
            return self.close("stop")
        self.starts.append(len(self.raw))
        self.tokens.append(token)
        self._add(self.detokenizer.push(token.id))
        if not self.finish and len(self.tokens) >= self.room:
            self.close("length")
        return None

    def close(self, finish: str) -> None:
        """Nothing follows, for this reason."""
        self._add(self.detokenizer.close())
        self.finish = self.finish or finish

    def _add(self, piece: str) -> None:
        self.raw += piece
        if self.skip < 0:
            if len(self.raw) < len(self.lead):
                return
            self.skip = len(self.lead) if self.raw.startswith(self.lead) else 0
            piece = self.raw[self.skip :]
        at = self.stops.push(piece)
        if at is not None:
            self.raw, self.finish = self.raw[: self.skip + at], "stop"
            kept = sum(start < len(self.raw) for start in self.starts)
            self.starts, self.tokens = self.starts[:kept], self.tokens[:kept]

    @property
    def text(self) -> str:
        return self.raw[max(self.skip, 0) :]

    @property
    def sure(self) -> int:
        """How many characters of `text` will stay, whatever comes: the rest may be the beginning of a stop string."""
        if self.finish:
            return len(self.text)
        return 0 if self.skip < 0 else len(self.raw) - self.skip - self.stops.open

    def news(self, prompt_tokens: int, notes: Mapping[str, Any] | None = None) -> Delta | None:
        """What is sure now and was not told before; None if there is nothing."""
        first, sure = max(self.skip, 0), self.sure
        text, self.told = self.raw[first + self.told : first + sure], max(self.told, sure)
        last = len(self.tokens)
        while not self.finish and last > self.handed and self.starts[last - 1] >= first + sure:
            last -= 1
        tokens, self.handed = tuple(self.tokens[self.handed : last]), max(self.handed, last)
        done = self.completion(prompt_tokens, notes) if self.finish else None
        return Delta(text, tokens, done) if text or tokens or done else None

    def completion(self, prompt_tokens: int, notes: Mapping[str, Any] | None = None) -> Completion:
        logprobs = tuple(token.logprob for token in self.tokens)
        return Completion(self.text, prompt_tokens, len(logprobs), self.finish, logprobs, dict(notes or {}))


class Spelling:
    """The bytes of each id of a tokenizer, looked up once."""

    def __init__(self, tokens: Tokens):
        self.tokens, self.known = tokens, dict[int, bytes]()

    def __call__(self, token: int) -> bytes:
        if token not in self.known:
            self.known[token] = self._spell(token)
        return self.known[token]

    def text(self, token: int) -> str:
        return self(token).decode("utf-8", "replace")

    def token(self, token: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> Token:
        others = tuple((self.text(other), value) for other, value in top)
        return Token(self.text(token), logprob, self(token), token, others)

    def _spell(self, token: int) -> bytes:
        table = self.tokens.byte_table
        if table is not None:
            return table.get(token, b"")
        piece = self.tokens.tokenizer.id_to_token(token) or ""
        if piece in self.tokens.special:
            return b""
        byte = BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()
