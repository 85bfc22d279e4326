"""How far two estimators of the calibration error are off, by simulation: 15 fixed bins, and the monotonic sweep.

    python benchmarks/calibration.py

Subjects of a known truth: confidences as of a choice among eight, and the probability of being right a function of
them. Each line is the mean and the standard deviation over ROUNDS samples of n cases, beside the true error. At the
end, the time of one estimate at n = 270 in microseconds.
"""

import time
from collections.abc import Callable

import numpy as np

from qualm.probes.calibration import BINS, FEWEST, calibration_error

ROUNDS = 2_000
SIZES = (100, 270, 1000)
TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda p: p,
    "0.1 too sure": lambda p: np.clip(p - 0.1, 0, 1),
    "right 0.6 times as often": lambda p: 0.6 * p,
    "wavy, by at most 0.1": lambda p: np.clip(p + 0.1 * np.sin(8 * p), 0, 1),
}


def fixed_bins(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE over 15 bins of equal mass (Guo et al. 2017, arXiv 1706.04599, with equal mass)."""
    gap = (confidence - right)[np.argsort(confidence, kind="stable")]
    bins = max(1, min(BINS, len(gap) // FEWEST))
    edges = np.linspace(0, len(gap), bins + 1).astype(int)[:-1]
    return float(np.abs(np.add.reduceat(gap, edges)).sum() / len(gap))


def drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Confidences between 1/8 and 1."""
    return 1 / 8 + 7 / 8 * rng.beta(4, 3, n)


def main() -> None:
    rng = np.random.default_rng(0)
    estimators = {"15 bins": fixed_bins, "sweep": calibration_error}
    print(f"{'subject':28}{'n':>6}{'true':>8}" + "".join(f"{name:>16}" for name in estimators))
    for subject, truth in TRUTHS.items():
        many = drawn(rng, 1_000_000)
        true = float(np.abs(many - truth(many)).mean())
        for n in SIZES:
            read: dict[str, list[float]] = {name: [] for name in estimators}
            for _ in range(ROUNDS):
                confidence = drawn(rng, n)
                right = (rng.random(n) < truth(confidence)).astype(float)
                for name, estimate in estimators.items():
                    read[name].append(estimate(confidence, right))
            said = "".join(f"{np.mean(r):>9.3f} ±{np.std(r):.3f}" for r in read.values())
            print(f"{subject:28}{n:>6}{true:>8.3f}{said}", flush=True)
    confidence = drawn(rng, 270)
    right = (rng.random(270) < confidence).astype(float)
    for name, estimate in estimators.items():
        started = time.perf_counter()
        for _ in range(1_000):
            estimate(confidence, right)
        print(f"{name}: {1e3 * (time.perf_counter() - started):.0f} us")


if __name__ == "__main__":
    main()
