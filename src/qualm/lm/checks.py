"""What a `Sampling` may be. Refused before anything is read."""

from qualm.errors import UsageError
from qualm.lm import constraints
from qualm.lm.sampling import Sampling

MOST_BEAMS, MOST_ALTERNATIVES = 1024, 1024
CUTS = ("refuse", "head", "middle")


def check(sampling: Sampling) -> None:
    """Raises UsageError on settings that mean nothing, or nothing together."""
    s, infinite = sampling, float("inf")
    plain = s.beams == 1 and not s.contrast
    wrong = {
        f"max_tokens = {s.max_tokens}": s.max_tokens < 0,
        f"temperature = {s.temperature}": not 0 <= s.temperature < infinite,
        f"top_k = {s.top_k}": s.top_k < 0,
        f"top_p = {s.top_p}": not 0 < s.top_p <= 1,
        f"min_p = {s.min_p}": not 0 <= s.min_p <= 1,
        f"typical_p = {s.typical_p}": not 0 < s.typical_p <= 1,
        "an empty stop string": "" in s.stop,
        f"beams = {s.beams}": not 1 <= s.beams <= MOST_BEAMS,
        f"beams = {s.beams} at temperature {s.temperature}": s.beams > 1 and s.temperature > 0,
        f"length_penalty = {s.length_penalty}": not abs(s.length_penalty) < infinite,
        f"beam_groups = {s.beam_groups}, of {s.beams} beams": s.beam_groups < 1 or s.beams % max(1, s.beam_groups) > 0,
        f"diversity_penalty = {s.diversity_penalty}": not 0 <= s.diversity_penalty < infinite,
        f"n_best = {s.n_best}, of {s.beams} beams": not 1 <= s.n_best <= s.beams,
        f"repetition_penalty = {s.repetition_penalty}": not 0 < s.repetition_penalty < infinite,
        f"presence_penalty = {s.presence_penalty}": not abs(s.presence_penalty) < infinite,
        f"frequency_penalty = {s.frequency_penalty}": not abs(s.frequency_penalty) < infinite,
        f"no_repeat_ngram = {s.no_repeat_ngram}": s.no_repeat_ngram < 0,
        f"dry = {s.dry}": not 0 <= s.dry < infinite,
        f"dry_base = {s.dry_base}": not 1 <= s.dry_base < 100,
        f"dry_length = {s.dry_length}": s.dry_length < 1,
        f"contrast = {s.contrast}": not 0 <= s.contrast <= 1,
        f"contrast = {s.contrast} without top_k from 2 to {MOST_BEAMS}": s.contrast > 0
        and not 2 <= s.top_k <= MOST_BEAMS,
        f"contrast = {s.contrast} with beams or a temperature": s.contrast > 0 and (s.beams > 1 or s.temperature > 0),
        "a logit_bias that is no number": any(value != value or value == infinite for _, value in s.logit_bias),
        "a logit_bias for no token": any(token < 0 for token, _ in s.logit_bias),
        "an empty banned word": "" in s.banned,
        f"alternatives = {s.alternatives}": not 0 <= s.alternatives <= MOST_ALTERNATIVES,
        f"lookup = {s.lookup}": s.lookup < 0,
        "lookup with beams or contrast": s.lookup > 0 and not plain,
        f"cut = {s.cut!r}": s.cut not in CUTS,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{what} means nothing here", then="see `Sampling` for what each setting may be")
    constraints.check(sampling)
