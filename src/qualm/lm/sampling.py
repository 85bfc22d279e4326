"""How to go on with a prompt, as one value: it can be hashed, compared, kept beside an answer."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Shape:
    """What an answer must look like: `text` is a JSON schema, a regular expression, a grammar, or choices by line."""

    kind: Literal["json", "regex", "choice", "grammar"]
    text: str = ""


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. Temperature 0 is greedy; `seed` fixes each prompt's draw whatever the batch.

    With `beams` above 1, at temperature 0, so many ways to go on are followed and the likeliest is taken: by its nats
    a token, or at another `length_penalty` by their sum over length ** length_penalty. All that follows is off unless
    it is set; `qualm.lm.policies` says what each does and who described it.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    beam_groups: int = 1  # beams in so many groups, each held off by `diversity_penalty` nats from what others say
    diversity_penalty: float = 0.0
    early_stopping: bool = False  # a search ends with as many finished answers as beams
    n_best: int = 1  # answers of a search; those behind the best stand in notes["others"]
    typical_p: float = 1.0
    repetition_penalty: float = 1.0  # of tokens in the prompt or the answer
    presence_penalty: float = 0.0  # of tokens in the answer, once
    frequency_penalty: float = 0.0  # of tokens in the answer, each time
    no_repeat_ngram: int = 0  # tokens: no run of so many comes twice
    dry: float = 0.0  # multiplier of DRY's penalty, `dry` * `dry_base` ** (length - `dry_length`)
    dry_base: float = 1.75
    dry_length: int = 2
    contrast: float = 0.0  # alpha of contrastive search among `top_k` tokens, at temperature 0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id of a token, what is added to its logit)
    banned: tuple[str, ...] = ()  # words and phrases that are not written
    shape: Shape | None = None
    alternatives: int = 0  # likeliest tokens told in each place
    lookup: int = 0  # tokens guessed at once from what was read before: the same answer, sooner
    cut: Literal["refuse", "head", "middle"] = "refuse"  # what is left out of a prompt longer than the context
