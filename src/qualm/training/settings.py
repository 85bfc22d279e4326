"""The settings of a training run, and the learning rate they give each step."""

import math
from dataclasses import dataclass
from typing import Literal

from qualm.errors import UsageError


@dataclass(frozen=True)
class TrainSettings:
    """How to train: everything that decides the result, and three fields (`device`, `threads`, `strict`) that guard it.

    One update uses `batch` x `accumulate` rows. Exactly one of `steps` and `epochs` is given. The rate `lr` is reached
    after the share `warmup` of all steps and falls to `min_lr` x `lr`; None chooses it by the number of parameters
    (`rate_for`). With the schedule "wsd" it stays at the peak up to the last fifth and falls there (warm-up, stable,
    decay: Hu et al. 2024, arXiv 2404.06395). Weight decay is for matrices only. `clip` bounds the gradient's norm (0:
    off). With `ema` above 0, validation and saving use a running mean of the weights that forgets at that rate a step.
    With a validation, every `eval_every` steps, training ends after `patience` readings without a new best (0: never).
    An update whose loss is beyond `spike` times the usual one is skipped, as one that is not finite is (0: never).
    With `recompute`, layers keep their inputs alone and are computed again in the backward pass; with `compile` they go
    through torch's compiler first (tens of seconds).
    On `device` "auto" a model is trained on a GPU if there is one, and comes back to where it was.
    `threads` 0 leaves torch's count; with `strict`, a run is not resumed at another thread count or torch version,
    at which the same steps give other bits.

    Attributes:
        steps: Updates. Without this and epochs, as many as are usual.
        epochs: Passes over the text.
        batch: Rows a pass.
        accumulate: Passes an update.
        lr: The peak learning rate; by default it follows from the size.
        warmup: The share of steps in which the rate rises.
        schedule: How the rate falls; wsd: in the last fifth only.
        min_lr: The last rate, as a share of the peak.
        optimiser: adamw; muon for the matrices inside, with adamw for the rest; sgd.
        weight_decay: Of matrices.
        beta1: Of AdamW.
        beta2: Of AdamW.
        clip: The largest norm of a gradient; 0 for no bound.
        ema: How much of a running mean of the weights, which is what is kept, a step keeps; 0 for none.
        spike: Skip an update whose loss is so many times the usual one; 0 for never.
        seed: Of the weights and of the order of the text.
        eval_every: Steps between two validations.
        save_every: Steps between two checkpoints.
        patience: Validations without a new best after which training ends; 0 for never.
        precision: What matrix products are computed in; auto: bf16 on a GPU that has it, on a CPU where it is faster.
        compile: Compile the layers first, which takes tens of seconds.
        recompute: Compute layers twice in place of keeping what is in them: less memory, a third more time.
        shard: Spread weights, gradients and moments over the processes, for a model too large for one of them.
        device: Where to train; auto: on a GPU if there is one.
        threads: Threads; 0 for torch's choice.
        strict: Go on only where the same steps give the same bits.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int = 8
    accumulate: int = 1
    lr: float | None = None
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    min_lr: float = 0.1
    optimiser: Literal["adamw", "muon", "sgd"] = "adamw"
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    ema: float = 0.0
    spike: float = 10.0
    seed: int = 0
    eval_every: int = 200
    save_every: int = 200
    patience: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    recompute: bool = False
    shard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    strict: bool = True

    def __post_init__(self) -> None:
        for name, low in LEAST.items():
            value = getattr(self, name)
            if value is not None and not (value >= low and math.isfinite(value)):
                raise UsageError(f"must be at least {low}, not {value}", where=f"TrainSettings.{name}")
        for name in ("warmup", "min_lr", "beta1", "beta2", "ema"):
            if getattr(self, name) > 1:
                raise UsageError(f"must be at most 1, not {getattr(self, name)}", where=f"TrainSettings.{name}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs are both given", then="give one of them")

    def total(self, rows: int) -> int:
        """Steps in all, over data of `rows` rows. Raises UsageError if neither steps nor epochs is given."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None:
            raise UsageError("how long to train is not said", then="give steps=... or epochs=...")
        return max(1, math.ceil(self.epochs * rows / (self.batch * self.accumulate)))


@dataclass(frozen=True)
class TuneSettings(TrainSettings):
    """How to tune: the usual values for that (Devlin et al. 2018, arXiv 1810.04805, appendix A.3)."""

    batch: int = 16
    warmup: float = 0.1
    weight_decay: float = 0.01


LEAST = {"steps": 1, "epochs": 0, "batch": 1, "accumulate": 1, "lr": 0, "warmup": 0, "min_lr": 0, "weight_decay": 0}
LEAST |= {"beta1": 0, "beta2": 0, "clip": 0, "eval_every": 1, "save_every": 1, "patience": 0, "threads": 0}
LEAST |= {"ema": 0, "spike": 0}
FALL = 0.2  # the share of steps in which "wsd" lowers the rate


def rate_for(parameters: int) -> float:
    """The peak learning rate for a decoder of so many parameters.

    The best rate falls as 1/width (Yang et al. 2022, arXiv 2203.03466, table 3), and the width of models of one shape
    grows as the cube root of their size: 3e-3 at 1.2 M (measured on the planted world), so 6.4e-4 at 124 M.
    """
    return 3e-3 * (1.2e6 / max(parameters, 1)) ** (1 / 3)


def rate_at(step: int, total: int, peak: float, settings: TrainSettings) -> float:
    """The learning rate of update `step` (1 is the first, `total` the last)."""
    warm = math.ceil(settings.warmup * total)
    if step <= warm:
        return peak * step / warm
    done = (step - warm) / max(1, total - warm)  # 0..1
    shapes = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    shapes["wsd"] = min(1.0, (1 - done) / FALL)
    shape = shapes[settings.schedule]
    floor = 1.0 if settings.schedule == "constant" else settings.min_lr
    return peak * (floor + (1 - floor) * shape)
