"""Tools: told to the model as text, asked back as JSON between two tags, as Hermes-style templates have it.

<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>

Where the request insists on a call, the answer is bound to that shape while it is written (`qualm.lm.base.Shape`), so
that it always parses. Nothing is ever run here: a call is handed to the client.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qualm.cases import Message
from qualm.lm.base import Shape
from qualm.serving.asking import text_of
from qualm.serving.errors import Refusal
from qualm.serving.schema import ChatBody, ChatMessage, NamedTool, Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = re.compile(rf"{OPEN}\s*(\{{.*?\}})\s*(?:{CLOSE}|$)", re.DOTALL)
TOLD = """You may call functions. They are, one a line, as JSON:
{tools}
To call one, answer with a line like this and nothing else:
<tool_call>{{"name": NAME, "arguments": OBJECT}}</tool_call>"""


@dataclass(frozen=True)
class Call:
    """A function that the model wants called; `arguments` is a JSON object as text."""

    name: str
    arguments: str
    id: str

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class Tools:
    """What a request says of tools: those it may call, whether it must, and the shape of a forced answer."""

    tools: Sequence[Tool] = ()
    forced: bool = False

    @classmethod
    def of(cls, body: ChatBody) -> "Tools":
        """Raises Refusal for a choice of a tool that there is not."""
        tools, choice = body.tools or [], body.tool_choice
        if isinstance(choice, NamedTool):
            tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if choice is not None and choice not in ("none", "auto") and not tools:
            raise Refusal(400, "tool_choice asks for a tool that is not in tools", param="tool_choice")
        return cls(() if choice == "none" else tools, choice not in (None, "none", "auto"))

    @property
    def shape(self) -> Shape | None:
        """Of an answer that must be a call."""
        if not self.forced:
            return None
        ways = [
            {
                "type": "object",
                "properties": {"name": {"const": t.function.name}, "arguments": t.function.parameters or OBJECT},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for t in self.tools
        ]
        return Shape("json", json.dumps(ways[0] if len(ways) == 1 else {"anyOf": ways}, ensure_ascii=False))

    def told(self, messages: Sequence[ChatMessage]) -> list[Message]:
        """Messages of ours, the tools told in the first one; calls and results of earlier turns as text."""
        found: list[Message] = [_message(message) for message in messages]
        if not self.tools:
            return found
        lines = [json.dumps(t.function.model_dump(exclude_none=True), ensure_ascii=False) for t in self.tools]
        told = TOLD.format(tools="\n".join(lines))
        if found[0]["role"] in ("system", "developer"):
            return [{**found[0], "content": f"{found[0]['content']}\n\n{told}"}, *found[1:]]
        return [{"role": "system", "content": told}, *found]

    def read(self, text: str) -> tuple[str, list[Call]]:
        """An answer without its calls, and those; what is no whole call of a tool there is stays text."""
        names = {tool.function.name for tool in self.tools}
        if self.forced:
            call = _call(text, names)
            return ("", [call]) if call else (text, [])
        calls = [call for found in CALL.finditer(text) if (call := _call(found[1], names))]
        return (CALL.sub("", text).strip() if calls else text), calls

    def sure(self, text: str, final: bool) -> int:
        """How many characters of an answer under way are no part of a call, whatever comes."""
        if self.forced:
            return 0
        if not self.tools or final:
            return len(text)
        at = text.find(OPEN)
        if at >= 0:
            return at
        return len(text) - next((k for k in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:k])), 0)


OBJECT = {"type": "object"}


def _call(text: str, names: set[str]) -> Call | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("name") not in names:
        return None
    arguments = found.get("arguments", {})
    if isinstance(arguments, str):
        return Call(found["name"], arguments, f"call_{secrets.token_hex(12)}")
    return Call(found["name"], json.dumps(arguments, ensure_ascii=False), f"call_{secrets.token_hex(12)}")


def _message(message: ChatMessage) -> Message:
    content = text_of(message.content)
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    for call in message.tool_calls or ():
        said = {"name": call.function.name, "arguments": _parsed(call.function.arguments)}
        content += f"{OPEN}{json.dumps(said, ensure_ascii=False)}{CLOSE}"
    return {"role": "system" if message.role == "developer" else message.role, "content": content}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
