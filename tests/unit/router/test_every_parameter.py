"""No parameter of OpenAI's, Anthropic's or vLLM's references is without effect and without a word."""

from typing import Any

import pytest

from router.errors import ApiError
from router.exchange import Exchange
from router.models import Model
from router.paths import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    INPUT_TOKENS,
    MESSAGES,
    RERANK,
    RESPONSES,
)
from router.settings import ROOT
from router.steps.adapt_request import adapt_request
from router.steps.check_parameters import Tolerated, check_parameters

TOLERATED = Tolerated.read(ROOT / "config" / "parameters.yaml", "ada-24gb")
HI = [{"role": "user", "content": "hi"}]
REQUIRED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    COMPLETIONS: {"prompt": "hi"},
    RESPONSES: {"input": "hi"},
    INPUT_TOKENS: {"input": "hi"},
    MESSAGES: {"model": "coder", "messages": HI, "max_tokens": 10},
    COUNT_TOKENS: {"model": "coder", "messages": HI},
    EMBEDDINGS: {"input": "hi"},
    RERANK: {"query": "hi", "documents": ["hello"]},
}
# The fields of the SDKs openai 2.54 and anthropic 2.12 (with its betas), of vLLM 0.32's protocol classes, and
# for reranking of Cohere's API, versions 1 and 2, and Jina's.
REFERENCES = {
    CHAT: """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
        max_tokens metadata modalities model moderation n parallel_tool_calls prediction
        presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
        reasoning_effort response_format safety_identifier seed service_tier stop store stream
        stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options add_generation_prompt add_special_tokens allowed_token_ids bad_words
        cache_salt chat_template chat_template_kwargs continue_final_message documents
        ec_transfer_params echo ignore_eos include_reasoning include_stop_str_in_output
        kv_transfer_params length_penalty logprob_token_ids media_io_kwargs min_p min_tokens
        mm_payload mm_processor_kwargs priority prompt_logprobs repetition_detection
        repetition_penalty request_id return_mm_kwargs return_prompt_text return_token_ids
        return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start session_id
        skip_special_tokens spaces_between_special_tokens stop_token_ids stream_interval
        structured_outputs thinking_token_budget top_k truncate_prompt_tokens truncation_side
        use_beam_search vllm_xargs watermarking""",
    COMPLETIONS: """best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty
        seed stop stream stream_options suffix temperature top_p user add_special_tokens
        allowed_token_ids bad_words cache_salt ec_transfer_params ignore_eos
        include_stop_str_in_output kv_transfer_params length_penalty logprob_token_ids min_p
        min_tokens mm_payload priority prompt_embeds prompt_logprobs repetition_detection
        repetition_penalty request_id response_format return_mm_kwargs return_token_ids
        return_token_offsets return_tokens_as_token_ids routed_experts_prompt_start session_id
        skip_special_tokens spaces_between_special_tokens stop_token_ids stream_interval
        structured_outputs thinking_token_budget top_k truncate_prompt_tokens truncation_side
        use_beam_search vllm_xargs watermarking""",
    RESPONSES: """background context_management conversation include instructions max_output_tokens
        max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt
        prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier
        service_tier store stream stream_options temperature text tool_choice tools top_logprobs
        top_p truncation user cache_salt chat_template_kwargs ec_transfer_params
        enable_response_messages frequency_penalty ignore_eos include_reasoning
        include_stop_str_in_output kv_transfer_params logit_bias media_io_kwargs min_p mm_payload
        mm_processor_kwargs presence_penalty previous_input_messages priority repetition_penalty
        request_id return_mm_kwargs seed session_id skip_special_tokens stop stop_token_ids
        structured_outputs top_k vllm_xargs watermarking""",
    INPUT_TOKENS: """conversation instructions model parallel_tool_calls personality previous_response_id
        reasoning text tool_choice tools truncation""",
    MESSAGES: """cache_control container diagnostics inference_geo metadata output_config service_tier speed
        stop_sequences stream system temperature thinking tool_choice tools top_k top_p
        user_profile_id workspace_id betas billing_policy compaction context_management
        fallback_credit_token fallbacks mcp_servers output_format thread cache_salt
        chat_template_kwargs ec_transfer_params kv_transfer_params mm_payload return_mm_kwargs
        vllm_xargs watermarking""",
    COUNT_TOKENS: """cache_control output_config speed system thinking tool_choice tools user_profile_id
        workspace_id betas billing_policy compaction context_management mcp_servers
        chat_template_kwargs""",
    EMBEDDINGS: """dimensions encoding_format model user add_generation_prompt add_special_tokens cache_salt
        chat_template chat_template_kwargs continue_final_message embed_dtype endianness messages
        media_io_kwargs mm_processor_kwargs padding priority request_id truncate_prompt_tokens
        truncation_side use_activation input_type truncate""",
    RERANK: """max_chunks_per_doc max_tokens_per_doc model rank_fields return_documents top_n cache_salt
        chat_template_kwargs instruction max_tokens_per_query mm_processor_kwargs padding priority request_id
        truncate_prompt_tokens truncation_side use_activation user""",
}
GUESSES = (True, 1, 0.5, "x", {"a": 1}, ["x"], [1], {"1": 1.0}, [{"name": "f", "text": "x"}])


def outcome(path: str, name: str, value: Any) -> str:
    """taken, ignored or refused; an assertion fails where a parameter vanishes."""
    exchange = Exchange(path, alias="coder", body=REQUIRED[path] | {name: value})
    if name in ("tool_choice", "parallel_tool_calls"):
        exchange.body["tools"] = [
            {"type": "function", "name": "f", "function": {"name": "f"}, "input_schema": {}}
        ]
    model = Model("coder", ("http://x",), "m", 4, 1000)
    try:
        check_parameters(exchange, tolerated=TOLERATED, max_n=4, max_stop=16)
        adapt_request(exchange, models={"coder": model})
    except ApiError as error:
        assert error.param and error.param.partition(".")[0] == name, error.message
        return "refused"
    renamed = {"functions": "tools", "function_call": "tool_choice", "output_format": "output_config"}
    if renamed.get(name, name) in exchange.body:
        return "taken"
    named = exchange.headers.get("x-duoserve-ignored", "")
    assert any(part.partition(".")[0] == name for part in named.split(", ")), f"{name} vanished"
    return "ignored"


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in REFERENCES.items() for name in names.split()]
)
def test_it_is_taken_or_named(path: str, name: str) -> None:
    """Values of every type, since the right one is taken and the wrong ones are refused by name."""
    for value in GUESSES:
        if value not in TOLERATED.unset.get(name, ()):
            assert outcome(path, name, value)
