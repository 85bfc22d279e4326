"""What a request to an OpenAI-compatible server holds, under the names in use."""

import json
from typing import Any

from qualm.cases import Prompt
from qualm.lm.base import Sampling, Shape

MOST_STOPS = 4  # stop strings a request may hold; further ones are applied to what comes back
PENALTIES = ("presence_penalty", "frequency_penalty", "repetition_penalty")


def fields(sampling: Sampling) -> dict[str, Any]:
    """The settings as fields; but for `max_tokens` and `temperature` only those that are set."""
    asked: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    if sampling.temperature > 0:
        asked["seed"] = sampling.seed
        asked |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        asked |= {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        asked |= {"min_p": sampling.min_p} if sampling.min_p > 0 else {}
    if sampling.beams > 1:
        asked |= {"num_beams": sampling.beams, "length_penalty": sampling.length_penalty}
    if sampling.stop:
        asked["stop"] = list(sampling.stop[:MOST_STOPS])
    penalties = {name: getattr(sampling, name) for name in PENALTIES}
    asked |= {name: value for name, value in penalties.items() if value != getattr(Sampling, name)}
    if sampling.logit_bias:
        asked["logit_bias"] = {str(token): value for token, value in sampling.logit_bias}
    return asked | (guide(sampling.shape) if sampling.shape else {})


def guide(shape: Shape) -> dict[str, Any]:
    """What the answer must look like, under vLLM's names."""
    if shape.kind == "json":
        return {"guided_json": json.loads(shape.text or "{}")}
    return {f"guided_{shape.kind}": shape.text.split("\n") if shape.kind == "choice" else shape.text}


def plain(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as JSON has it."""
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
