"""The parameters of each API, their types and ranges.

OpenAI's API reference (https://platform.openai.com/docs/api-reference), Anthropic's
(https://docs.claude.com/en/api/messages) and vLLM's sampling extras, except everything that controls the
proxy or the engine rather than the answer (addresses, headers, retries, callbacks, templates, priorities).
Whether the messages make sense is for the engine to decide.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from router import paths

Json = dict[str, Any]
Text = Annotated[str, Field(max_length=64)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Stop = str | list[Annotated[str, Field(min_length=1)]]


class Parameters(BaseModel):
    """What all APIs have in common."""

    # Strict: "1" is not a number and 1 is not true, as in the APIs that these describe.
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, description="An alias or another published name; see /v1/models.")
    stream: bool | None = None


class Message(BaseModel):
    """One chat message. Other keys (name, reasoning ...) go to the engine as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Json] | None = None
    tool_calls: list[Json] | None = None
    tool_call_id: str | None = None


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class TemplateKwargs(BaseModel):
    """What the chat templates and vLLM's parsers of the models served here and their relatives read.

    Everything else in `chat_template_kwargs` is refused: the tokenizer takes it as arguments, and
    `padding: max_length` with a large `max_length` costs gigabytes.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

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


class _Sampled(Parameters):
    """What chat and text completions have in common."""

    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    seed: Seed | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: Json | None = None
    # vLLM's
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    structured_outputs: Json | None = None
    add_special_tokens: bool | None = None
    # OpenAI's bookkeeping
    metadata: Json | None = None
    store: bool | None = None
    service_tier: str | None = None


class Chat(_Sampled):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    # OpenAI's bookkeeping
    modalities: list[Literal["text"]] | None = None
    prediction: Json | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    verbosity: str | None = None


class Completion(_Sampled):
    """Body of /v1/completions. With `suffix` it is a fill-in-the-middle request."""

    prompt: str | list[str] | list[int] | list[list[int]]
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None


class Responses(Parameters):
    """Body of /v1/responses. Nothing is stored: no `previous_response_id`, no background."""

    input: str | list[Json]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    text: Json | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    reasoning: Json | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    background: Literal[False] | None = None
    # OpenAI's bookkeeping
    metadata: Json | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    stream_options: Json | None = None


class _Anthropic(Parameters):
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[Json] | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    # Hints for Anthropic's own service
    thinking: Json | None = None
    context_management: Json | None = None
    output_config: Json | None = None


class Messages(_Anthropic):
    """Body of /v1/messages."""

    max_tokens: Tokens
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = None
    metadata: Json | None = None
    service_tier: str | None = None


class CountTokens(_Anthropic):
    """Body of /v1/messages/count_tokens."""


BY_PATH: dict[str, type[Parameters]] = {
    paths.CHAT: Chat,
    paths.COMPLETIONS: Completion,
    paths.RESPONSES: Responses,
    paths.MESSAGES: Messages,
    paths.COUNT_TOKENS: CountTokens,
}
