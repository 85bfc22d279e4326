"""The log-probabilities of a given text, for `echo`: those of a causal model with the likeliest tokens beside them, of
any other model that scores texts without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from qualm.errors import TooLong
from qualm.lm.causal import CausalLM
from qualm.lm.decode import padded
from qualm.serving.errors import Refusal
from qualm.serving.replies import Json
from qualm.serving.served import Served
from qualm.tokens.tokenizer import Tokens

AT_ONCE = 4096  # tokens read in one go, between two steps of the answers under way
POSITIONS = 512  # positions whose logits are held at once
PART = "\ufffd"  # of a character


@dataclass(frozen=True)
class Given:
    """A text as tokens: `start` stands before them unseen; `spelled` and `offsets` are those of `ids`."""

    text: str
    start: tuple[int, ...]
    ids: tuple[int, ...]
    spelled: tuple[str, ...]
    offsets: tuple[int, ...]

    @property
    def whole(self) -> list[int]:
        return [*self.start, *self.ids]


@dataclass(frozen=True)
class Place:
    """One token of a text: its log-probability in nats, None if nothing stands before it, and the likeliest there."""

    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


def of_text(tokens: Tokens, text: str) -> Given:
    """A text as its model reads it; markers that are spelled in it are text."""
    encoded = tokens.offsets(text)
    spans = encoded.offsets
    spelled = tuple(_spelled(text, spans, i) for i in range(len(spans)))
    return Given(text, tokens.start, tuple(encoded.ids), spelled, tuple(start for start, _ in spans))


def of_ids(tokens: Tokens, ids: Sequence[int]) -> Given:
    """Tokens that the client cut itself, read as their text would be: behind the tokenizer's start tokens, whether they
    bring those or not. Raises Refusal for a number that is no token.
    """
    if max(ids) >= tokens.vocab_size:
        raise Refusal(400, f"there is no token {max(ids)}", param="prompt", code="invalid_value")
    spelled = tuple(spelled_alone(tokens, each) for each in ids)
    offsets = [0]
    for each in spelled:
        offsets.append(offsets[-1] + len(each))
    start = () if tuple(ids[: len(tokens.start)]) == tokens.start else tokens.start
    return Given(tokens.decode(ids, skip_special=False), start, tuple(ids), spelled, tuple(offsets[:-1]))


def _spelled(text: str, spans: Sequence[tuple[int, int]], index: int) -> str:
    start, end = spans[index]
    shared = any(spans[i][1] > start and spans[i][0] < end for i in (index - 1, index + 1) if 0 <= i < len(spans))
    return PART if shared else text[start:end]


def spelled_alone(tokens: Tokens, token: int) -> str:
    """A token as text on its own, parts of a character as U+FFFD."""
    return tokens.decode([token], skip_special=False)


def portions(given: Sequence[Given]) -> Iterator[list[Given]]:
    """Texts in the order given, as many together as are read at once."""
    held: list[Given] = []
    for each in given:
        widest = max(len(other.whole) for other in [*held, each])
        if held and (len(held) + 1) * widest > AT_ONCE:
            yield held
            held = []
        held.append(each)
    if held:
        yield held


def places(served: Served, given: Sequence[Given], top: int) -> list[list[Place]]:
    """A place a token, for each text. Raises TooLong if one is longer than the model can look at."""
    local = served.local
    assert local is not None
    longest = max(len(each.whole) for each in given)
    if longest > local.context:
        raise TooLong(f"the prompt has {longest} tokens and {served.name} can look at {local.context}")
    if served.lm is local and isinstance(local, CausalLM):
        return _read(local, given, top)
    return [_told(served, each) for each in given]


def _told(served: Served, given: Given) -> list[Place]:
    """By the model's own scores, the likeliest tokens unknown."""
    numbers = served.lm.score([("", given.text)])[0].logprobs
    missing = len(given.ids) - len(numbers)
    if missing not in (0, 1):
        raise Refusal(400, f"{served.name} cuts texts in another way than its tokenizer", param="echo")
    return [Place(None)] * missing + [Place(number) for number in numbers]


@torch.inference_mode()
def _read(lm: CausalLM, given: Sequence[Given], top: int) -> list[list[Place]]:
    device = next(lm.model.parameters()).device
    rows = [each.whole for each in given]
    at = [(row, i) for row, ids in enumerate(rows) for i in range(1, len(ids))]
    found: list[list[Place]] = [[Place(None)] if ids else [] for ids in rows]
    if at:
        ids, lengths = padded(rows, device)
        hidden = lm.model.hidden(ids, None, lengths)  # (B, T, D)
        for some in (at[i : i + POSITIONS] for i in range(0, len(at), POSITIONS)):
            numbers = torch.tensor(some, device=device)
            targets = ids[numbers[:, 0], numbers[:, 1]]
            logprobs = lm.model.head(hidden[numbers[:, 0], numbers[:, 1] - 1]).float().log_softmax(-1)  # (N, V)
            wanted = logprobs.gather(-1, targets[:, None]).squeeze(-1).tolist()
            best = logprobs.topk(min(top, logprobs.shape[-1])) if top else None
            for n, (row, _) in enumerate(some):
                ranked = zip(best.indices[n].tolist(), best.values[n].tolist(), strict=True) if best else ()
                found[row].append(Place(wanted[n], tuple((spelled_alone(lm.tokens, i), p) for i, p in ranked)))
    return [row[len(each.start) :] for row, each in zip(found, given, strict=True)]


def logprobs(given: Given, read: Sequence[Place], top: int) -> Json:
    """The legacy shape, for the text alone."""
    likely: list[dict[str, float] | None] = []
    for spelled, place in zip(given.spelled, read, strict=True):
        named: dict[str, float] = {}
        for text, logprob in place.top[:top]:
            named.setdefault(text, logprob)
        if place.logprob is not None:
            named.setdefault(spelled, place.logprob)
        likely.append(named if place.top else None)
    return {
        "tokens": list(given.spelled),
        "token_logprobs": [place.logprob for place in read],
        "top_logprobs": likely if top else None,
        "text_offset": list(given.offsets),
    }
