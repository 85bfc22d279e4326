"""The chat template: messages in, the text that the model was trained on out.

A template comes with a downloaded model, so it is untrusted code: it runs in a sandbox, under a bound on time and on
the size of everything it builds (`qualm.tokens.sandbox`). Its inputs are untrusted too: see `Guard`.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from qualm.errors import InputError, Unsupported
from qualm.tokens.sandbox import Budget, Sandbox, TooMuch

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

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "ipython"})


class Refused(TemplateError):
    """The template's own word on messages that it is not made for."""


def refuse(message: str) -> None:
    raise Refused(message)


def now(form: str) -> str:
    return datetime.now().strftime(form)


def to_json(value: Any, indent: int | None = None, **settings: Any) -> str:
    """As transformers has it: no HTML escapes, no ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **settings)


class Template:
    """A compiled chat template.

    Raises InputError if it does not compile, fails or runs past a bound, Unsupported if it refuses the messages.
    """

    def __init__(self, source: str, where: str = "chat template"):
        self.source, self.where, self.budget = source, where, Budget()
        environment = Sandbox(self.budget, tojson=to_json, raise_exception=refuse, strftime_now=now)
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
                raise TooMuch(f"it writes more than {self.budget.size} characters")
            kept.append(piece)
        return "".join(kept)

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Refused as error:
            raise Unsupported(f"the chat template does not take these messages: {error}", where=self.where) from error
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


def without_control(tokenizer: Tokenizer, special: Mapping[str, int]) -> Tokenizer:
    """The same, but that a unigram vocabulary does not find control tokens among the pieces of a text."""
    made = json.loads(tokenizer.to_str())
    if made["model"]["type"] == "Unigram":
        for i in special.values():
            if i < len(made["model"]["vocab"]):
                made["model"]["vocab"][i][0] = secrets.token_hex(16)  # what no text spells
        made["added_tokens"] = [token for token in made["added_tokens"] if not token["special"]]
    return Tokenizer.from_str(json.dumps(made))
