"""The parameters of each API, their types and ranges.

OpenAI's API reference (https://platform.openai.com/docs/api-reference), Anthropic's
(https://docs.claude.com/en/api/messages) and vLLM's sampling extras, except everything that controls the
proxy or the engine rather than the answer (addresses, headers, retries, callbacks, templates, priorities).
Whether the messages make sense is for the engine to decide.
What is taken and means nothing here is in config/parameters.yaml.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router import paths

Json = dict[str, Any]
Text = Annotated[str, Field(max_length=64)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopK = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Logprobs = Annotated[int, Field(ge=0, le=20)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
# Of what is wrong in a list or an object, only the first is looked for: it may hold a million entries.
_First = Field(fail_fast=True)
Texts = Annotated[list[str], _First]
Objects = Annotated[list[Json], _First]
Ids = Annotated[list[int], _First]
Stop = str | Annotated[list[Annotated[str, Field(min_length=1)]], _First]


def _or_one_wrong(*kinds: type) -> BeforeValidator:
    """Leaves of an object only the first entry whose value is of none of `kinds`, if there is one."""

    def check(value: Any) -> Any:
        entries = value.items() if isinstance(value, dict) else ()
        return next(({name: entry} for name, entry in entries if type(entry) not in kinds), value)

    return BeforeValidator(check)


Biases = Annotated[dict[str, float], _or_one_wrong(int, float)]


class _Strict(BaseModel):
    """Takes what it names, and nothing else. "1" is not a number and 1 is not true, as in the APIs that these
    describe.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _with_one_unknown(cls, given: Any) -> Any:
        """Leaves only the first name that is unknown, if there are more."""
        unknown = given.keys() - cls.model_fields.keys() if isinstance(given, dict) else ()
        if len(unknown) < 2:
            return given
        first = next(name for name in given if name in unknown)
        return {name: value for name, value in given.items() if name == first or name not in unknown}


class Parameters(_Strict):
    """What all APIs have in common."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="An alias or another published name; see /v1/models. Missing: the first of them.",
    )
    stream: bool | None = None


class _OpenAI(Parameters):
    user: str | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class Message(BaseModel):
    """One chat message. Other keys (name, reasoning ...) go to the engine as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str = Field(min_length=1, description="Any that the model's chat template knows.")
    content: str | Objects | None = None
    tool_calls: Objects | None = None
    tool_call_id: str | None = None
    function_call: Json | None = None


class StreamOptions(_Strict):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class TemplateKwargs(_Strict):
    """What the chat templates and vLLM's parsers of the models served here and their relatives read.

    Everything else in `chat_template_kwargs` is refused: the tokenizer takes it as arguments, and
    `padding: max_length` with a large `max_length` costs gigabytes.
    """

    enable_thinking: bool | None = None  # Qwen3, GLM, Hermes, Nemotron
    thinking: bool | None = None  # DeepSeek, Granite, Kimi
    thinking_mode: Text | None = None
    thinking_budget: Annotated[int, Field(ge=-1, le=10_000_000)] | None = None  # Seed-OSS
    reasoning_effort: Text | Annotated[int, Field(ge=0, le=100)] | None = None  # gpt-oss, Mistral, DeepSeek
    preserve_thinking: bool | None = None  # Qwen3.5
    clear_thinking: bool | None = None  # GLM
    drop_thinking: bool | None = None  # DeepSeek
    truncate_history_thinking: bool | None = None  # Nemotron
    low_effort: bool | None = None  # Nemotron
    force_nonempty_content: bool | None = None  # Nemotron
    tool_call_format: Text | None = None  # K2
    keep_cot: bool | None = None  # Hermes
    model_identity: Annotated[str, Field(max_length=1024)] | None = None  # gpt-oss
    date_string: Text | None = None  # Llama
    tools_in_user_message: bool | None = None  # Llama
    add_vision_id: bool | None = None  # Qwen's vision models


class _Sampled(_OpenAI):
    """What chat and text completions have in common."""

    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    seed: Seed | None = None
    stream_options: StreamOptions | None = None
    response_format: Json | None = None
    # vLLM's
    top_k: TopK | None = None
    min_p: Probability | None = None
    repetition_penalty: RepetitionPenalty | None = None
    repetition_detection: Json | None = None
    min_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    stop_token_ids: Ids | None = None
    allowed_token_ids: Ids | None = None
    bad_words: Texts | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    structured_outputs: Json | None = None
    add_special_tokens: bool | None = None
    prompt_logprobs: Logprobs | None = None
    logprob_token_ids: Ids | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    stream_interval: Annotated[int, Field(ge=1, le=1000)] | None = None
    thinking_token_budget: Annotated[int, Field(ge=-1, le=10_000_000)] | None = None


class Chat(_Sampled):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | Literal[0, 1] | None = None
    top_logprobs: Logprobs | None = None
    tools: Objects | None = None
    tool_choice: str | Json | None = None
    functions: Objects | None = Field(default=None, description="The former name of `tools`.")
    function_call: str | Json | None = Field(default=None, description="The former name of `tool_choice`.")
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    reasoning: Json | None = Field(default=None, description="OpenRouter's form of `reasoning_effort`.")
    thinking: bool | Json | None = Field(default=None, description="Anthropic's, DeepSeek's and GLM's form.")
    enable_thinking: bool | None = Field(default=None, description="Qwen's form.")
    include_reasoning: bool | None = None
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    documents: Annotated[list[Annotated[dict[str, str], _or_one_wrong(str)]], _First] | None = None
    return_prompt_text: bool | None = None


class Completion(_Sampled):
    """Body of /v1/completions. With `suffix` it is a fill-in-the-middle request."""

    prompt: str | Texts | Ids | Annotated[list[Ids], _First]
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="0 only together with `echo`: the prompt is scored, and nothing generated."
    )
    suffix: str | None = None
    logprobs: bool | Logprobs | None = None
    echo: bool | None = None


_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]


class _Pooled(_OpenAI):
    """What embeddings and reranking have in common: vLLM's pooling runner."""

    stream: Literal[False] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=10_000_000)] | None = None
    truncation_side: Literal["left", "right"] | None = None


class Embeddings(_Pooled):
    """Body of /v1/embeddings."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1, fail_fast=True)]
        | _TokenIds
        | Annotated[list[_TokenIds], Field(min_length=1, fail_fast=True)]
    ) = Field(description="A text, several, or their tokens. At most 2,048 texts.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None, description="Only what the model was trained for; see the engine's hf-overrides."
    )
    # vLLM's
    add_special_tokens: bool | None = None
    use_activation: bool | None = Field(default=None, description="Whether vectors have the length 1.")


class Rerank(_Pooled):
    """Body of /v1/rerank, as Cohere, Jina and vLLM have it."""

    query: str
    documents: Annotated[list[str | Json], Field(min_length=1, fail_fast=True)] = Field(
        description="Texts, or objects with a `text`. At most 2,048."
    )
    top_n: Annotated[int, Field(ge=0, le=10_000)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    # vLLM's
    max_tokens_per_query: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    instruction: Annotated[str, Field(max_length=4096)] | None = None
    use_activation: bool | None = None


class InputTokens(_OpenAI):
    """Body of /v1/responses/input_tokens."""

    input: str | Objects
    instructions: str | None = None
    text: Json | None = None
    tools: Objects | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Json | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: TemplateKwargs | None = None


class Responses(InputTokens):
    """Body of /v1/responses. Nothing is stored: no `previous_response_id`, no background."""

    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Logprobs | None = None
    include: Texts | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    # vLLM's
    top_k: TopK | None = None
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: Biases | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stop_token_ids: Ids | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    include_reasoning: bool | None = None
    structured_outputs: Json | None = None


class AnthropicMessage(Message):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | Objects


class _Anthropic(Parameters):
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, fail_fast=True)]
    system: str | Objects | None = None
    tools: Objects | None = None
    tool_choice: Json | None = None
    thinking: Json | None = None
    output_config: Json | None = None
    output_format: Json | None = Field(default=None, description="The former name of `output_config.format`.")
    chat_template_kwargs: TemplateKwargs | None = None


class Messages(_Anthropic):
    """Body of /v1/messages."""

    max_tokens: Tokens
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1)]], _First] | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class CountTokens(_Anthropic):
    """Body of /v1/messages/count_tokens."""


BY_PATH: dict[str, type[Parameters]] = {
    paths.CHAT: Chat,
    paths.COMPLETIONS: Completion,
    paths.RESPONSES: Responses,
    paths.INPUT_TOKENS: InputTokens,
    paths.MESSAGES: Messages,
    paths.COUNT_TOKENS: CountTokens,
    paths.EMBEDDINGS: Embeddings,
    paths.RERANK: Rerank,
}
