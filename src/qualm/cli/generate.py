"""`qualm generate`: continue a text."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from inspect import cleandoc
from typing import Annotated, TypeVar

from cyclopts import Group, Parameter

from qualm.cli._shape import Shaping
from qualm.cli.common import Common, print_json_line
from qualm.cli.models import load
from qualm.errors import UsageError
from qualm.lm.base import LM, Sampling
from qualm.text.tidy import tidied

SAMPLING = Group("Sampling", sort_key=3)
SHAPE = Group("Shape", sort_key=4)


SETTINGS = """
    sampling.max_tokens: The most tokens to write.
    sampling.temperature: 0 takes the likeliest token; 1 draws as the model says.
    sampling.top_k: Draw from so many of the likeliest tokens; 0 for all.
    sampling.top_p: Draw from the likeliest tokens that together have this probability.
    sampling.min_p: Draw from tokens at least this share as likely as the likeliest.
    sampling.stop: Stop before this text. May be given several times.
    sampling.seed: Of the draw.
    sampling.beams: Follow so many ways to go on, and take the likeliest; at temperature 0.
    sampling.length_penalty: Of beams: 1 compares nats a token, 0 their sum.
    sampling.beam_groups: Part the beams into so many groups that keep away from each other.
    sampling.diversity_penalty: Nats a group is charged for a token that another said in the same step.
    sampling.early_stopping: End a search with as many finished answers as beams.
    sampling.n_best: Tell so many answers of a search, in the notes under --json.
    sampling.typical_p: Draw from the tokens nearest to the expected information that have this probability.
    sampling.repetition_penalty: Divide the odds of tokens that stand before; 1 is none.
    sampling.presence_penalty: Taken from the odds of tokens that were written, once.
    sampling.frequency_penalty: Taken from the odds of tokens that were written, each time.
    sampling.no_repeat_ngram: No run of so many tokens comes twice; 0 is off.
    sampling.dry: How hard to charge a repetition that grows; 0 is off.
    sampling.dry_base: How much more each token of the repetition costs.
    sampling.dry_length: Tokens that may repeat free of charge.
    sampling.contrast: From 0 to 1, how much to avoid what was said, among --top-k tokens.
    sampling.logit_bias: The id of a token and what is added to its odds. May be given several times.
    sampling.banned: A word that is not written. May be given several times.
    sampling.shape.kind: Hold the answer to a JSON schema, a regular expression, choices or a grammar.
    sampling.shape.text: That schema, expression or grammar; choices by line.
    sampling.alternatives: Likeliest tokens to tell in each place.
    sampling.lookup: Guess so many tokens at once from what was read: the same answer, sooner.
    sampling.cut: What is left out of a prompt that is too long; by default it is refused.
"""

Verb = TypeVar("Verb", bound=Callable[..., None])


def explained(verb: Verb) -> Verb:
    """A verb that takes a Sampling, with what each of its settings does behind its own arguments."""
    verb.__doc__ = f"{cleandoc(verb.__doc__ or '')}{SETTINGS}"
    return verb


@explained
def generate(
    model: str,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    sampling: Annotated[Sampling, Parameter(name="*", group=SAMPLING)] = Sampling(),
    shaping: Annotated[Shaping, Parameter(name="*", group=SHAPE)] = Shaping(),
    stream: Annotated[bool, Parameter(negative="")] = False,
    common: Common = Common(),
) -> None:
    """Continue a text. Only the continuation is printed.

    Args:
        model: A model folder, a .gguf file, pypi:PACKAGE==VERSION, http://host/v1#name, or fake:NAME.
        prompt: The text to continue; - reads it from stdin.
        shaping.json_schema: A file with the JSON schema that the answer must have.
        shaping.json_object: Any JSON object.
        shaping.regex: The expression that the whole answer must match.
        shaping.choice: What to choose from: a,b,c. May be given several times.
        shaping.grammar: A file with a grammar in Lark's notation.
        shaping.tidy: Put the answer's Markdown in order, or print only its JSON or its whole sentences.
        stream: Print as it is written.
    """
    check(sampling)
    sampling = shaping.on(sampling)
    if shaping.tidy and stream:
        raise UsageError("what is printed as it is written cannot be tidied", where="--tidy", then="leave out --stream")
    text = read_stdin(common) if prompt == "-" else prompt
    lm = load(model, common)
    if stream:
        print_stream(lm, text, sampling, common)
        return
    completion = lm.generate([text], sampling)[0].read()
    told = {"text": completion.text, "finish": completion.finish, "tokens": completion.tokens}
    told |= {"prompt_tokens": completion.prompt_tokens, "notes": dict(completion.notes)}
    document = {"schema": "qualm.generate/1", "model": lm.name, "prompt": text, "sampling": asdict(sampling), **told}
    shown = tidied(completion.text, shaping.tidy) if shaping.tidy else completion.text
    common.result(document | ({"tidied": shown} if shaping.tidy else {}), shown)


def check(sampling: Sampling) -> None:
    """Raises UsageError for settings that mean nothing."""
    if sampling.max_tokens < 1:
        raise UsageError(f"must be at least 1, not {sampling.max_tokens}", where="--max-tokens")
    if sampling.temperature < 0:
        raise UsageError(f"must not be below 0, not {sampling.temperature}", where="--temperature")
    if sampling.top_k < 0:
        raise UsageError(f"must not be below 0, not {sampling.top_k}", where="--top-k")
    for name in ("top_p", "min_p"):
        value = getattr(sampling, name)
        if not 0 <= value <= 1:
            raise UsageError(f"must lie between 0 and 1, not {value}", where=f"--{name.replace('_', '-')}")


def read_stdin(common: Common) -> str:
    """All of stdin, less the last line's end."""
    if sys.stdin.isatty():
        common.remark("the prompt is read from here; end it with Ctrl-D")
    return sys.stdin.read().removesuffix("\n")


def print_stream(lm: LM, prompt: str, sampling: Sampling, common: Common) -> None:
    """Pieces as they come; under --json one document a piece and line."""
    for piece in lm.stream(prompt, sampling):
        if common.json:
            print_json_line({"schema": "qualm.generate.piece/1", "text": piece})
        else:
            print(piece, end="", flush=True)
    if not common.json:
        print()
