"""Jinja under a bound on time and size, for templates that come with a downloaded model.

Jinja's own sandbox keeps a template from the interpreter; it does not keep it from running for ever or from filling
the memory. Here every value a template can hold is at most `Budget.size` large, counted through what it contains,
and every loop, call, filter and operator looks at the clock.
"""

import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

SECONDS = 1.0
CHARACTERS = 1_000_000  # of any one value a template builds, beyond four times what it was given
GROWTH = 32  # how much more than that one step may build before it is measured
BITS = 4096  # of a number

BUILDERS = {"expandtabs", "format", "format_map", "indent", "join", "replace", "sum", "tojson", "translate"}
NEEDLESS = {"filesizeformat", "pprint", "striptags", "urlize", "wordwrap", "xmlattr"}  # slow, and in no chat template
WIDE = re.compile(r"\d{7}|:[^{}]*\{")  # a width of millions, or one that is filled in


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
            raise TooMuch(f"it runs longer than {SECONDS:g} s")

    def refuse(self) -> TooMuch:
        return TooMuch(f"it builds more than {self.size} characters")

    def measure(self, value: Any) -> int:
        """Characters in all strings of `value`, and one for each thing in it. Raises TooMuch past the bound."""
        total, todo = 0, [value]
        while todo:
            one = todo.pop()
            total += len(one) if isinstance(one, str) else 1
            if isinstance(one, int) and one.bit_length() > BITS:
                raise TooMuch(f"it makes a number of more than {BITS} bits")
            inside = len(one) if isinstance(one, list | tuple | set | Mapping) else 0
            if total + len(todo) + inside > self.size:
                raise self.refuse()
            if inside:
                todo += one.values() if isinstance(one, Mapping) else one
        return total

    def check(self, value: Any) -> Any:
        """`value` itself if it is small enough."""
        self.tick()
        self.measure(value)
        return value

    def check_call(self, name: str, arguments: Iterable[Any]) -> None:
        """Raises TooMuch before a call that would build something too large to be measured afterwards."""
        given = [value for value in arguments if isinstance(value, int | str | list | tuple | Mapping)]
        if any(isinstance(value, int) and abs(value) > self.size for value in given):
            raise self.refuse()
        if name in ("format", "format_map") and any(isinstance(v, str) and WIDE.search(v) for v in given[:1]):
            raise self.refuse()
        if name in BUILDERS:
            sizes = (abs(v) if isinstance(v, int) else self.measure(v) for v in given)
            if math.prod(max(1, size) for size in sizes) > GROWTH * self.size:
                raise self.refuse()

    def loop(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.tick()
            yield item


class Bounded(NodeTransformer):
    """Sends what a template builds without calling anything through the budget."""

    def checked(self, node: nodes.Expr) -> nodes.Filter:
        return through("_check", self.generic_visit(node))

    visit_List = visit_Dict = visit_Concat = checked

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.checked(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = through("_loop", node.iter)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:
        self.generic_visit(node)
        node.filter = through("_check", node.filter)
        return node


def through(name: str, node: nodes.Node | None) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno if node else 1)


class Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; in rendering it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with the settings that chat templates expect, under a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, budget: Budget, **added: Callable[..., Any]):
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        self.budget = budget
        kept: dict[str, Any] = {name: f for name, f in self.filters.items() if name not in NEEDLESS}
        kept["tojson"] = added.pop("tojson")
        bounded: dict[str, Any] = {name: self.bounded(name, f) for name, f in kept.items()}
        self.filters = bounded | {"_loop": budget.loop, "_check": budget.check}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")} | added

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = Bounded().visit(super()._parse(source, name, filename))
        return tree.set_environment(self)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(function, "__wrapped__", function)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        itself = [owner] if isinstance(owner, str) else []
        self.budget.check_call(getattr(method, "__name__", ""), (*itself, *args, *kwargs.values()))
        return self.budget.check(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            numbers = [abs(x) for x in (left, right) if isinstance(x, int)]
            sizes = [self.budget.measure(x) for x in (left, right) if isinstance(x, str | list | tuple)]
            if numbers and sizes and numbers[0] * sizes[0] > self.budget.size:
                raise self.budget.refuse()
        if operator == "**" and not (isinstance(right, int | float) and abs(right) <= 64):
            raise TooMuch("it raises a number to a power above 64")
        if operator == "%" and isinstance(left, str):
            self.budget.check_call("format", (left, *(right if isinstance(right, tuple) else (right,))))
        return self.budget.check(super().call_binop(context, operator, left, right))

    def bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")  # the first argument is Jinja's own

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = [self.listed(name, value) for value in args]
            self.budget.check_call(name, (*given[passed:], *kwargs.values()))
            return self.budget.check(function(*given, **kwargs))

        return run

    def listed(self, name: str, value: Any) -> Any:
        """A lazy sequence read out, where how much is in it decides how much is built."""
        return self.budget.check(list(self.budget.loop(value))) if name in BUILDERS and is_lazy(value) else value


def is_lazy(value: Any) -> bool:
    return isinstance(value, Iterator | range)
