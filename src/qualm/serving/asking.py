"""From the body of a request to `Sampling`."""

import json
import secrets
from typing import Any

from qualm.lm.base import Sampling, Shape
from qualm.serving.errors import Refusal
from qualm.serving.schema import Asked, Part

GUIDES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


def sampling_of(body: Asked, max_tokens: int, **more: Any) -> Sampling:
    """OpenAI's defaults (temperature 1), but greedy where beams are asked for. `more` are further settings."""
    beams = beams_of(body)
    heat = body.temperature if body.temperature is not None else (0.0 if beams > 1 else 1.0)
    if beams > 1 and heat > 0:
        raise Refusal(400, "beams are followed at temperature 0 only", param="temperature", code="invalid_value")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if beams > 1:
        more |= {"beams": beams, "length_penalty": 1.0 if body.length_penalty is None else body.length_penalty}
    shape = guide_of(body)
    if shape is not None:
        more["shape"] = shape
    return Sampling(
        max_tokens=max_tokens,
        temperature=heat,
        top_k=max(0, body.top_k or 0),
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        stop=stop,
        seed=secrets.randbits(48) if body.seed is None else body.seed,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=tuple((int(i), value) for i, value in (body.logit_bias or {}).items()),
        **more,
    )


def beams_of(body: Asked) -> int:
    """`num_beams`, or as vLLM has it `n` (or `best_of`) with `use_beam_search`."""
    if body.num_beams is not None:
        return body.num_beams
    wide = max(body.n or 1, getattr(body, "best_of", None) or 1)
    return max(2, wide) if body.use_beam_search else 1


def guide_of(body: Asked) -> Shape | None:
    """What the answer must look like, under vLLM's names. Raises Refusal for two at once."""
    given = [name for name in GUIDES if getattr(body, name) is not None]
    if len(given) > 1:
        raise Refusal(400, f"{' and '.join(given)}: give one of them", param=given[1], code="invalid_value")
    if body.guided_json is not None:
        return Shape("json", json.dumps(body.guided_json, ensure_ascii=False))
    if body.guided_regex is not None:
        return Shape("regex", body.guided_regex)
    if body.guided_choice is not None:
        if any("\n" in choice for choice in body.guided_choice):
            raise Refusal(400, "a choice holds an end of line", param="guided_choice", code="invalid_value")
        return Shape("choice", "\n".join(body.guided_choice))
    return None if body.guided_grammar is None else Shape("grammar", body.guided_grammar)


def text_of(content: str | list[Part] | None) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())
