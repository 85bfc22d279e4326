"""Decoding policies as small functions, composed once for a `Sampling`: what may be written next, and how likely.

Some look at the logits alone, some also at what was read and written before. Those that weigh tokens against each
other by their place in the text come first, those that cut the distribution last, as in transformers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from qualm.lm.sampling import Sampling

Filter = Callable[[Tensor], Tensor]  # logits (B, V) -> logits (B, V), what is refused at -inf
Policy = Callable[[Tensor, "Sequence[Past]"], Tensor]  # the same, with what stands before each row
Chooser = Callable[[Tensor, "Sequence[Past]", Sequence[Random]], Tensor]  # and a source a row -> tokens (B,)
TRIES = 32  # draws before those that are refused are left out
LONGEST = 64  # tokens of a repetition that DRY looks back


@dataclass
class Past:
    """The ids before a token: the first `read` of them were given, the others written."""

    ids: list[int] = field(default_factory=list)
    read: int = 0

    @property
    def written(self) -> list[int]:
        return self.ids[self.read :]


# -- by the logits alone


def temperature(value: float) -> Filter:
    return lambda logits: logits / value


def top_k(count: int) -> Filter:
    """Keep the `count` likeliest tokens, and what ties with the last of them (Fan et al. 2018, arXiv 1805.04833)."""

    def keep(logits: Tensor) -> Tensor:
        least = logits.topk(min(count, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)

    return keep


def top_p(mass: float) -> Filter:
    """Keep the fewest tokens that hold `mass` of the probability (Holtzman et al. 2020, arXiv 1904.09751)."""

    def keep(logits: Tensor) -> Tensor:
        ordered, order = logits.sort(-1, descending=True)
        p = ordered.softmax(-1)
        late = p.cumsum(-1) - p >= mass  # the tokens before it hold enough
        return logits.masked_fill(late.scatter(-1, order, late), -torch.inf)

    return keep


def min_p(share: float) -> Filter:
    """Keep tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""
    least = torch.tensor(share).log()
    return lambda logits: logits.masked_fill(logits < logits.amax(-1, keepdim=True) + least, -torch.inf)


def typical_p(mass: float) -> Filter:
    """Keep the fewest tokens that hold `mass`, those first whose information is nearest to the entropy (Meister et al.
    2022, arXiv 2202.00666).
    """

    def keep(logits: Tensor) -> Tensor:
        logs = logits.log_softmax(-1)
        p = logs.exp()
        entropy = -(logs * p).nansum(-1, keepdim=True)
        order = (-logs - entropy).abs().argsort(-1)
        ordered = p.gather(-1, order)
        late = ordered.cumsum(-1) - ordered >= mass
        return logits.masked_fill(late.scatter(-1, order, late), -torch.inf)

    return keep


def refuse(ids: Sequence[int]) -> Filter:
    """Never these ids."""
    which = torch.tensor(ids, dtype=torch.long)
    return lambda logits: logits.index_fill(-1, which.to(logits.device), -torch.inf)


def bias(values: Mapping[int, float]) -> Filter:
    """Add to the logits of these ids (OpenAI's logit_bias)."""
    ids, added = torch.tensor(list(values)), torch.tensor(list(values.values()))
    return lambda logits: logits.index_add(-1, ids.to(logits.device), added.to(logits).expand(len(logits), -1))


# -- by what stands before


def repetition(factor: float) -> Policy:
    """Logits of tokens that stand before: divided by `factor` where above 0, else multiplied (Keskar et al. 2019,
    arXiv 1909.05858, as transformers has it).
    """

    def keep(logits: Tensor, pasts: Sequence[Past]) -> Tensor:
        logits = logits.clone()
        for row, past in zip(logits, pasts, strict=True):
            ids = torch.tensor(past.ids, device=row.device).unique()
            row[ids] = torch.where(row[ids] < 0, row[ids] * factor, row[ids] / factor)
        return logits

    return keep


def penalties(presence: float, frequency: float) -> Policy:
    """logit -= count * frequency + (count > 0) * presence, counted in what was written (OpenAI's API reference)."""

    def keep(logits: Tensor, pasts: Sequence[Past]) -> Tensor:
        logits = logits.clone()
        for row, past in zip(logits, pasts, strict=True):
            if past.written:
                ids, counts = torch.tensor(past.written, device=row.device).unique(return_counts=True)
                row[ids] -= counts.to(row.dtype) * frequency + presence
        return logits

    return keep


def dry(multiplier: float, base: float, allowed: int) -> Policy:
    """Don't Repeat Yourself: logit -= multiplier * base ** (n - allowed) for a token that would lengthen a repetition
    of n >= allowed tokens (github.com/oobabooga/text-generation-webui, pull request 5677).

    The n tokens at the end, which stood somewhere before that token already; at most LONGEST are looked at.
    """

    def keep(logits: Tensor, pasts: Sequence[Past]) -> Tensor:
        logits = logits.clone()
        for row, past in zip(logits, pasts, strict=True):
            for token, length in repeats(past.ids).items():
                if length >= allowed:
                    row[token] -= multiplier * base ** (length - allowed)
        return logits

    return keep


def repeats(ids: Sequence[int]) -> dict[int, int]:
    """For each token that would go on with a repetition: how many of the last ids stood before it already."""
    found: dict[int, int] = {}
    last = len(ids) - 1
    for at in range(last):
        if ids[at] == ids[last]:
            length = 1
            while length < min(LONGEST, at + 1) and ids[at - length] == ids[last - length]:
                length += 1
            found[ids[at + 1]] = max(found.get(ids[at + 1], 0), length)
    return found


def no_repeat(length: int) -> Policy:
    """Refuse a token that would end a run of `length` tokens which stands there already (Paulus et al. 2017, arXiv
    1705.04304).
    """

    def keep(logits: Tensor, pasts: Sequence[Past]) -> Tensor:
        logits = logits.clone()
        for row, past in zip(logits, pasts, strict=True):
            ids, end = past.ids, past.ids[len(past.ids) - length + 1 :]
            same = [i for i in range(len(ids) - length + 1) if ids[i : i + length - 1] == end]
            row[[ids[i + length - 1] for i in same]] = -torch.inf
        return logits

    return keep


def without(phrases: Sequence[Sequence[int]]) -> Policy:
    """Refuse the last token of each run of ids, once the others have been written."""

    def keep(logits: Tensor, pasts: Sequence[Past]) -> Tensor:
        logits = logits.clone()
        for row, past in zip(logits, pasts, strict=True):
            ended = [p[-1] for p in phrases if len(p) == 1 or past.ids[-len(p) + 1 :] == list(p[:-1])]
            row[ended] = -torch.inf
        return logits

    return keep


# -- composed


@dataclass(frozen=True)
class Words:
    """What a tokenizer and a model make of a sampling: ids that are never written, and the ids of `banned`."""

    never: tuple[int, ...] = ()
    phrases: Sequence[Sequence[int]] = ()


def weighing(sampling: Sampling, words: Words = Words()) -> list[Policy]:
    """What changes the odds of tokens, by what was written and by wish."""
    s = sampling
    always = [bias(dict(s.logit_bias))] if s.logit_bias else []
    always += [refuse(words.never)] if words.never else []
    policies: list[Policy] = [plain(each) for each in always]
    policies += [repetition(s.repetition_penalty)] if s.repetition_penalty != 1 else []
    if s.presence_penalty or s.frequency_penalty:
        policies.append(penalties(s.presence_penalty, s.frequency_penalty))
    policies += [dry(s.dry, s.dry_base, s.dry_length)] if s.dry else []
    policies += [no_repeat(s.no_repeat_ngram)] if s.no_repeat_ngram else []
    policies += [without(words.phrases)] if words.phrases else []
    return policies


def plain(keep: Filter) -> Policy:
    """A filter as a policy."""
    return lambda logits, pasts: keep(logits)


def cutting(sampling: Sampling) -> list[Filter]:
    """What cuts off the unlikely part before a draw."""
    s = sampling
    filters: list[Filter] = [temperature(s.temperature)]
    filters += [top_k(s.top_k)] if s.top_k else []
    filters += [top_p(s.top_p)] if s.top_p < 1 else []
    filters += [min_p(s.min_p)] if s.min_p > 0 else []
    filters += [typical_p(s.typical_p)] if s.typical_p < 1 else []
    return filters


def chooser(sampling: Sampling, words: Words = Words()) -> Chooser:
    """The settings as one function, built once."""
    policies, filters = weighing(sampling, words), [] if sampling.temperature == 0 else cutting(sampling)

    def choose(logits: Tensor, pasts: Sequence[Past], sources: Sequence[Random]) -> Tensor:
        for weigh in policies:
            logits = weigh(logits, pasts)
        if not filters:
            return logits.argmax(-1)
        whole = kept = filters[0](logits)
        for keep in filters[1:]:
            kept = keep(kept)
        return draw(whole, None if kept is whole else kept, sources)

    return choose


def draw(whole: Tensor, kept: Tensor | None, sources: Sequence[Random]) -> Tensor:
    """Tokens (B,) drawn from logits `whole` (B, V), those that are -inf in `kept` drawn anew.

    So whether a token at the edge is still kept, which rounding may decide, matters only if the draw falls on it; a
    draw from what is kept alone would shift by its probability, and with it all that follows. After TRIES misses it is
    drawn so all the same: the distribution is one and the same.
    """
    tries = 1 if kept is None else TRIES
    mass = whole.softmax(-1).double().cumsum(-1)  # (B, V)
    draws = torch.tensor([[s.random() for _ in range(tries)] for s in sources], dtype=mass.dtype, device=mass.device)
    tokens = torch.searchsorted(mass, draws * mass[:, -1:], right=True)  # (B, tries)
    if kept is None:
        return tokens.squeeze(-1)
    good = kept.gather(-1, tokens) > -torch.inf
    found = tokens.gather(-1, good.int().argmax(-1, keepdim=True)).squeeze(-1)
    missed = (~good.any(-1)).nonzero().flatten()
    if len(missed):
        found[missed] = draw(kept[missed], None, [sources[i] for i in missed.tolist()])
    return found
