"""A request to a remote model: what only vLLM takes is left out, and nothing is stored."""

from collections.abc import Mapping

from router import paths
from router.errors import ApiError
from router.exchange import Exchange
from router.models import Model
from router.steps.adapt_request import allowed_tools, old_functions

# vLLM's parameters, which change how tokens are sampled or told.
_ENGINES = frozenset(
    (
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "bad_words",
        "cache_salt",
        "chat_template_kwargs",
        "ignore_eos",
        "include_reasoning",
        "include_stop_str_in_output",
        "logprob_token_ids",
        "min_p",
        "min_tokens",
        "prompt_logprobs",
        "repetition_detection",
        "repetition_penalty",
        "return_prompt_text",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop_token_ids",
        "stream_interval",
        "thinking_token_budget",
    )
)
# vLLM's too, but without them the answer would be another one than was asked for.
_REFUSED = {
    "structured_outputs": "use response_format",
    "continue_final_message": "send the whole conversation",
    "documents": "write them into a message",
}
# By API, more that only vLLM takes.
_ENGINES_ONLY = {
    paths.CHAT: frozenset(("top_k", "echo")),
    paths.COMPLETIONS: frozenset(("top_k",)),
    paths.RESPONSES: frozenset(
        ("top_k", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop", "max_tool_calls")
    ),
}
# OpenAI's parameters that only nudge the answer; providers that lack one need not refuse the request.
_HINTS = frozenset(
    (
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "top_logprobs",
        "user",
    )
)


def adapt_for_provider(
    exchange: Exchange, *, models: Mapping[str, Model], supported: Mapping[str, frozenset[str]]
) -> None:
    """Rewrites the body. What is left out is named in x-duoserve-ignored.

    `supported` are the parameters of OpenAI's chat API that a model's provider has, by alias.

    Raises:
        ApiError: 400; a parameter cannot be left out without changing what is asked for.
    """
    body, path, alias = exchange.body, exchange.path, exchange.alias
    for name, remedy in _REFUSED.items():
        if name in body:
            raise ApiError(
                400,
                f"'{name}' is not supported: '{alias}' is not an engine of this service; {remedy}.",
                reason="bad_request",
                param=name,
                code="unsupported_parameter",
            )
    unable = _ENGINES | _ENGINES_ONLY.get(path, frozenset())
    if path == paths.CHAT:
        unable |= _HINTS - supported[alias]
    for name in sorted(unable & body.keys()):
        del body[name]
        exchange.ignore(name)
    options = body.get("stream_options") or {}
    for name in sorted(options.keys() - {"include_usage"}):
        del options[name]
        exchange.ignore(f"stream_options.{name}")
    if path == paths.CHAT:
        old_functions(exchange, models[alias])
        allowed_tools(exchange, models[alias])
    if path == paths.RESPONSES:
        body["store"] = False  # by default OpenAI keeps what it is asked through this API
