"""What a request may hold. A field that is not named here is ignored, and named in the header of the answer.

Numbers are numbers and texts are texts: nothing is read as something that it is not.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST = 2**31 - 1
Id = Annotated[int, Field(ge=0, le=MOST)]
Text = Annotated[str, Field(max_length=2**22)]
Stop = Annotated[str, Field(min_length=1, max_length=1024)]
Word = Annotated[str, Field(min_length=1, max_length=1024)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Numeral = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Schema = dict[str, Any]


class Body(BaseModel):
    """A body; what its class does not name is kept apart."""

    model_config = ConfigDict(strict=True, extra="allow")

    @property
    def ignored(self) -> list[str]:
        return sorted(self.__pydantic_extra__ or {})


class StreamOptions(Body):
    include_usage: bool = False


class Asked(Body):
    """What all requests for text have in common: OpenAI's names, then those of vLLM and of our own settings."""

    model: Annotated[str, Field(max_length=256)] = ""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[Numeral, Bias], Field(max_length=1024)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    use_beam_search: bool | None = None
    num_beams: Annotated[int, Field(ge=1, le=16)] | None = None
    length_penalty: Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)] | None = None
    guided_json: Schema | None = None
    guided_regex: Annotated[str, Field(max_length=4096)] | None = None
    guided_choice: Annotated[list[Word], Field(min_length=1, max_length=256)] | None = None
    guided_grammar: Annotated[str, Field(max_length=2**16)] | None = None


class CompletionBody(Asked):
    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Id], Field(min_length=1)]
        | Annotated[list[Annotated[list[Id], Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=MOST)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=64)] | None = None
    suffix: None = None  # no model here fills a gap between two texts


class Part(Body):
    type: Literal["text"]
    text: Text


class FunctionCall(Body):
    name: Annotated[str, Field(max_length=256)]
    arguments: Text = "{}"


class ToolCall(Body):
    id: Annotated[str, Field(max_length=256)] = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: Annotated[str, Field(max_length=64)]


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    name: Annotated[str, Field(max_length=64)] = ""
    schema_: Annotated[Schema, Field(alias="schema")]
    strict: bool | None = None


class TextFormat(Body):
    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class ChatBody(Asked):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | SchemaFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    knowledge: Annotated[str, Field(max_length=64)] | None = None  # ours: a knowledge base to read passages from


class EmbeddingBody(Body):
    model: Annotated[str, Field(max_length=256)] = ""
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[str, Field(max_length=1024)] | None = None


class TokenizeBody(Body):
    """`prompt` or `messages`. Markers that are spelled in them are text."""

    model: Annotated[str, Field(max_length=256)] = ""
    prompt: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)] | None = None
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    model: Annotated[str, Field(max_length=256)] = ""
    tokens: list[Id]


class Pair(Body):
    """A continuation to score after its context: a text, or messages."""

    context: Text | Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    continuation: Text


class ScoreBody(Body):
    model: Annotated[str, Field(max_length=256)] = ""
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=1024)]


class ExplainBody(Body):
    """`answer` left out: what the model answers itself."""

    model: Annotated[str, Field(max_length=256)] = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=64)]
    answer: Annotated[str, Field(max_length=4096)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST)] = 0


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal, whatever its status."""

    error: ErrorDetail
