from typing import Any

import pytest
from pydantic import ValidationError

from router.errors import ApiError
from router.schemas import BY_PATH
from router.steps.check_parameters import checked

CHAT = {"model": "coder", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = "/v1/messages"
TEXT = {"model": "coder", "prompt": "hi"}


def accepted(body: dict[str, Any], path: str = "/v1/chat/completions") -> dict[str, Any]:
    return checked(body, path, max_n=4, max_stop=16)


def refused(body: dict[str, Any], path: str = "/v1/chat/completions") -> ApiError:
    with pytest.raises(ApiError) as caught:
        accepted(body, path)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    "steering",
    [
        "api_base",
        "api_key",
        "base_url",
        "extra_headers",
        "extra_body",
        "timeout",
        "num_retries",
        "mock_response",
        "mock_timeout",
        "callbacks",
        "fallbacks",
        "custom_llm_provider",
        "chat_template",
        "priority",
        "request_id",
        "kv_transfer_params",
        "vllm_xargs",
        "custom_body",
        "query_params",
        "litellm_params",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_steering_parameters_are_named(steering: str, path: str) -> None:
    base = CHAT if path == "/v1/chat/completions" else TEXT
    assert refused({**base, steering: "x"}, path).param == steering


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("temperature", "hot"),
        ("temperature", 3),
        ("top_p", -0.1),
        ("n", 0),
        ("n", 5),
        ("n", True),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("stream", "yes"),
        ("stream", 1),
        ("stop", [str(i) for i in range(17)]),
        ("stop", [1]),
        ("messages", []),
        ("messages", "hi"),
        ("tools", {}),
        ("stream_options", []),
    ],
)
def test_wrong_values_are_named(param: str, value: Any) -> None:
    error = refused({**CHAT, param: value})
    assert error.param == param
    assert f"'{param}'" in error.message


def test_a_wrong_role_is_named_with_its_place() -> None:
    messages = [{"role": "robot", "content": "x"}]
    assert refused({**CHAT, "max_tokens": 5, "messages": messages}, MESSAGES).param == "messages.0.role"
    accepted({**CHAT, "messages": messages})  # what a chat template makes of it is its own matter


@pytest.mark.parametrize("missing", ["messages", "max_tokens"])
def test_what_is_missing_is_named(missing: str) -> None:
    whole = {**CHAT, "max_tokens": 5}
    error = refused({name: value for name, value in whole.items() if name != missing}, MESSAGES)
    assert (error.param, error.code) == (missing, "missing_required_parameter")


def test_no_value_of_the_client_is_quoted() -> None:
    assert "secret words" not in refused({**CHAT, "max_tokens": "secret words"}).message


def test_stop_keeps_one_of_each_in_order() -> None:
    assert accepted({**CHAT, "stop": ["b", "a", "b", "a"] * 8})["stop"] == ["b", "a"]


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert accepted({**CHAT, "max_tokens": 8.0, "temperature": 0.5}) == {
        **CHAT,
        "max_tokens": 8,
        "temperature": 0.5,
    }


def test_a_seed_beyond_64_bits_is_told_the_limit() -> None:
    # As the parser reads it.
    assert str(2**63 - 1) in refused({**CHAT, "seed": float(2**70)}).message


def test_nothing_is_generated_only_where_the_prompt_is_scored() -> None:
    accepted({**TEXT, "max_tokens": 0, "echo": True, "logprobs": 1}, "/v1/completions")
    assert refused({**TEXT, "max_tokens": 0}, "/v1/completions").param == "max_tokens"


@pytest.mark.parametrize(
    ("name", "value"), [("padding", "max_length"), ("max_length", 8_000_000), ("enable_thinking", "yes")]
)
def test_only_known_template_arguments_pass(name: str, value: Any) -> None:
    error = refused({**CHAT, "chat_template_kwargs": {name: value}})
    assert "chat_template_kwargs" in error.message
    accepted({**CHAT, "chat_template_kwargs": {"thinking": True, "reasoning_effort": "high"}})


def test_what_good_clients_send_is_accepted() -> None:
    accepted(
        {
            **CHAT,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_completion_tokens": 100,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    )
    accepted({"model": "coder", "prompt": [1, 2, 3], "logprobs": 1, "echo": False}, "/v1/completions")
    accepted({"model": "coder", "input": "hi", "reasoning": {}}, "/v1/responses")
    accepted({**CHAT, "max_tokens": 5, "system": [{"type": "text", "text": "s"}]}, "/v1/messages")


@pytest.mark.parametrize(
    "wrong",
    [[None] * 1000, [[None] * 1000], [{str(i): None for i in range(1000)}], [{"content": [None] * 1000}]],
)
@pytest.mark.parametrize("path", BY_PATH)
def test_of_a_thousand_faults_only_the_first_is_looked_for(path: str, wrong: list[Any]) -> None:
    """A million of them would take the router seconds and gigabytes. Of a union, each branch has one."""
    schema = BY_PATH[path]
    for name in (*schema.model_fields, "unknown"):
        for value in (wrong, wrong[0]):
            try:
                schema.model_validate({name: value})
            except ValidationError as error:
                assert error.error_count() < 20, (name, value)
    unknown = {f"unknown_{number}": 1 for number in range(1000)}
    for body in (unknown, {"chat_template_kwargs": unknown}, {"stream_options": unknown}):
        with pytest.raises(ValidationError) as caught:
            schema.model_validate(body)
        assert caught.value.error_count() < 20
    assert refused(CHAT | unknown).param == "unknown_0"
    assert refused(CHAT | {"logit_bias": {"1": 1.0, "2": "x", "3": "y"}}).param == "logit_bias"
