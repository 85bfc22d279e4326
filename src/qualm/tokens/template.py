"""The chat template: messages in, the text that the model was trained on out.

A template comes with a downloaded model, so it is untrusted code: it runs in Jinja's immutable sandbox, under a
bound on time, on steps and on the size of everything it builds. Its inputs are untrusted too: see `Guard`.
"""

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qualm.errors import InputError

DEFAULT = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == "user" -%}
{{- "Question: " + message.content + "\\nAnswer:" -}}
{%- elif message.role == "assistant" -%}
{{- " " + message.content + (eos_token or "\\n") -}}
{%- else -%}
{{- message.content + "\\n" -}}
{%- endif -%}
{%- endfor -%}
"""

SECONDS = 1.0
CHARACTERS = 1_000_000  # of any one value a template builds, beyond four times what it was given
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "ipython"})


class TooMuch(TemplateError):
    """A template ran past a bound."""


class Budget:
    """What one rendering may spend."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, given: int) -> None:
        self.until, self.size = time.monotonic() + SECONDS, CHARACTERS + 4 * given

    def tick(self) -> None:
        if time.monotonic() > self.until:
            raise TooMuch(f"the chat template ran longer than {SECONDS:g} s")

    def check(self, value: Any) -> Any:
        """`value` itself if it is small enough."""
        self.tick()
        if isinstance(value, int):
            size = value.bit_length() // 8
        else:
            size = len(value) if isinstance(value, str | list | tuple | dict) else 0
        if size > self.size:
            raise TooMuch(f"the chat template builds more than {self.size} characters")
        return value

    def check_arguments(self, arguments: Iterable[Any]) -> None:
        """Widths and counts, as numbers or inside a format string, are what turns a few characters into billions."""
        for value in arguments:
            too_wide = isinstance(value, int) and abs(value) > self.size
            if too_wide or (isinstance(value, str) and re.search(r"[:%.*<>^+-]\d{7}", value)):
                raise TooMuch(f"the chat template asks for more than {self.size} characters")

    def loop(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.tick()
            yield item


class Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; in rendering it changes nothing."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it, every loop, call, filter and operator under the budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, budget: Budget):
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        self.budget = budget
        self.filters = {name: self.bounded(filter_) for name, filter_ in self.filters.items()}
        self.filters |= {"tojson": self.bounded(to_json), "_loop": budget.loop, "_check": budget.check}
        self.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_loop", [], [], None, None)
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = nodes.Filter(block.filter, "_check", [], [], None, None)
        for join in list(tree.find_all(nodes.Concat)):
            join.nodes = [nodes.Filter(nodes.Concat(join.nodes), "_check", [], [], None, None)]
        return tree.set_environment(self)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        itself = getattr(function, "__self__", None)
        self.budget.check_arguments((*args, *kwargs.values(), *([itself] if isinstance(itself, str) else [])))
        return self.budget.check(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = [abs(x) for x in (left, right) if isinstance(x, int)]
        sized = [len(x) for x in (left, right) if isinstance(x, str | list | tuple)]
        if operator == "*" and numbers and sized and numbers[0] * sized[0] > self.budget.size:
            raise TooMuch(f"the chat template builds more than {self.budget.size} characters")
        if operator == "**" and len(numbers) == 2 and numbers[1] > 64:
            raise TooMuch("the chat template raises a number to a power above 64")
        if operator == "%":
            self.budget.check_arguments((left, right, *(right if isinstance(right, tuple) else ())))
        return self.budget.check(super().call_binop(context, operator, left, right))

    def bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.budget.check_arguments((*args[1:], *kwargs.values()))
            return self.budget.check(function(*args, **kwargs))

        return run


def refuse(message: str) -> None:
    raise TemplateError(message)


def to_json(value: Any, indent: int | None = None, **settings: Any) -> str:
    """As transformers has it: no HTML escapes, no ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **settings)


class Template:
    """A compiled chat template. Raises InputError if it does not compile, fails or runs past a bound."""

    def __init__(self, source: str, where: str = "chat template"):
        self.source, self.where, self.budget = source, where, Budget()
        environment: Environment = Sandbox(self.budget)
        self.compiled = self._guarded(lambda: environment.from_string(source))

    def render(self, messages: Sequence[Mapping[str, Any]], generation: bool, **names: Any) -> str:
        """`names` are the template's other variables: bos_token, eos_token, tools, ..."""
        for message in messages:
            if message.get("role") not in ROLES:
                raise InputError(f"no role {message.get('role')!r}", then=f"the roles are {', '.join(sorted(ROLES))}")
        self.budget.start(sum(len(str(m)) for m in messages))
        names = {"tools": None, "documents": None, **names, "add_generation_prompt": generation}
        return self._guarded(lambda: self._collect(self.compiled.generate(messages=messages, **names)))

    def _collect(self, pieces: Iterable[str]) -> str:
        kept: list[str] = []
        size = 0
        for piece in pieces:
            self.budget.tick()
            size += len(piece)
            if size > self.budget.size:
                raise TooMuch(f"the chat template writes more than {self.budget.size} characters")
            kept.append(piece)
        return "".join(kept)

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the chat template does not work: {error}", where=self.where) from error
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise InputError("the chat template is nested too deep or too large", where=self.where) from error


class Guard:
    """Keeps markers ("<|im_end|>") that stand in a message from becoming the control tokens of the same spelling.

    Before rendering, one character of every marker in a message is swapped for a lone surrogate, which no valid
    text holds; after rendering only the template's own markers can be found, and then the swap is undone. Half a
    marker at either end of a message is treated alike, so that it cannot be completed by what stands beside it.
    A swap keeps lengths, and leaves a template's own logic on the content (trim, split) as it was.
    """

    def __init__(self, markers: Iterable[str]):
        self.markers = sorted(markers, key=lambda m: (-len(m), m))
        any_marker = "|".join(map(re.escape, self.markers)) or "(?!)"
        self.found = re.compile(any_marker)
        self.starts = re.compile(f"(?s)(?=(?:{any_marker}))(.)")
        self.prefixes = {m[:k] for m in self.markers for k in range(1, len(m))}
        self.suffixes = {m[-k:] for m in self.markers for k in range(1, len(m))}
        self.longest = len(self.markers[0]) if self.markers else 0
        alphabet = sorted(set("".join(self.markers)))
        self.away = {ord(c): 0xD800 + i for i, c in enumerate(alphabet)}
        self.back = {new: old for old, new in self.away.items()}

    def protect(self, value: Any) -> Any:
        """`value` with every string in it (but roles) protected. Raises InputError on text that is not Unicode."""
        if isinstance(value, str):
            return self._protect_text(value)
        if isinstance(value, Mapping):
            return {k: v if k == "role" else self.protect(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.protect(v) for v in value]
        return value

    def _protect_text(self, text: str) -> str:
        check_unicode(text)
        text = self.starts.sub(lambda m: m[1].translate(self.away), text)
        first, last = len(text) - len(text.lstrip()), len(text.rstrip())
        where = {first for k in range(1, self.longest) if text[first : first + k] in self.suffixes}
        where |= {last - k for k in range(1, min(self.longest, last + 1)) if text[last - k : last] in self.prefixes}
        return "".join(c.translate(self.away) if i in where else c for i, c in enumerate(text)) if where else text

    def restore(self, text: str) -> str:
        return text.translate(self.back)

    def split(self, text: str) -> Iterator[tuple[str, int, bool]]:
        """The pieces of a protected text, restored: (piece, where it begins, whether it is a marker)."""
        at = 0
        for match in self.found.finditer(text):
            if match.start() > at:
                yield self.restore(text[at : match.start()]), at, False
            yield match[0], match.start(), True
            at = match.end()
        if at < len(text):
            yield self.restore(text[at:]), at, False


def check_unicode(text: str) -> None:
    """Raises InputError if `text` holds half a surrogate pair, which no file and no tokenizer can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start}") from error
