"""The router in front of real vLLM: every API, cancellation, context keeping and structured answers."""

import itertools
import json
import re
import time
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.support.stack import Stack
from tests.support.waiting import wait_for

WINDOW = 8192


def metric(stack: Stack, name: str, alias: str = "coder") -> float:
    text = httpx.get(f"{stack.engines[alias]}/metrics").text
    return sum(float(v) for v in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def post(stack: Stack, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{stack.url}{path}", json=body, headers=stack.headers, timeout=600)


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "coder", "messages": [{"role": "user", "content": content}]} | more


@pytest.mark.parametrize("stream", [False, True])
def test_every_api_answers(stack: Stack, stream: bool) -> None:
    for path, body in {
        "/v1/chat/completions": chat("Say hello.", max_tokens=8),
        "/v1/completions": {"model": "coder", "prompt": "Once upon", "max_tokens": 8},
        "/v1/responses": {"model": "general", "input": "Say hello.", "max_output_tokens": 8},
        "/v1/messages": chat("Say hello.", max_tokens=8),
    }.items():
        answer = post(stack, path, body | {"stream": stream})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-request-id"].startswith("req-")
        assert ("text/event-stream" in answer.headers["content-type"]) == stream
        assert not answer.json().get("error") if not stream else '"error":{' not in answer.text


def test_anthropics_client(stack: Stack) -> None:
    with anthropic.Anthropic(base_url=stack.url, api_key=stack.key, max_retries=0) as client:
        with client.messages.stream(
            model="general", max_tokens=12, messages=[{"role": "user", "content": "Say hello."}]
        ) as stream:
            assert "".join(stream.text_stream).strip()
        counted = client.messages.count_tokens(
            model="general", messages=[{"role": "user", "content": "Say hello."}]
        )
        assert counted.input_tokens > 3


def test_an_answer_of_a_given_shape(stack: Stack) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = chat("A colour?", response_format=shape, max_tokens=40, temperature=0)
    content = post(stack, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert json.loads(content)["colour"] in ("red", "green")


def test_a_tool_call_and_its_result(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="coder",
            messages=[{"role": "user", "content": "The weather in Rome?"}],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_tokens=60,
            temperature=0,
        )
        calls = answer.choices[0].message.tool_calls
        assert calls
        assert calls[0].type == "function"
        assert (
            calls[0].function.name == "weather"
        )  # what a model this small makes of the arguments is no matter
        after = client.chat.completions.create(
            model="coder",
            messages=[
                {"role": "user", "content": "The weather in Rome?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": calls[0].id,
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
            ],
            max_tokens=20,
        )
        assert after.choices[0].message.content


def test_a_seeded_prompt_of_many_steps_leaves_the_engine_alive(stack: Stack) -> None:
    body = {"model": "coder", "prompt": "one two three " * 400, "max_tokens": 5, "seed": 7}
    with httpx.Client(timeout=600, headers=stack.headers) as client:
        for _ in range(2):
            answer = client.post(f"{stack.url}/v1/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-duoserve-ignored"] == "seed"


@pytest.mark.parametrize(
    ("stream", "wait_for_token"),
    [
        pytest.param(True, True, id="streaming"),
        pytest.param(True, False, id="before the first token"),
        pytest.param(False, False, id="not streaming"),
    ],
)
def test_vllm_is_free_when_the_client_leaves(stack: Stack, stream: bool, wait_for_token: bool) -> None:
    body = chat("Count to a thousand.", max_tokens=1500, min_tokens=1500, stream=stream)
    with httpx.Client(timeout=600, headers=stack.headers) as client:
        try:
            timeout = httpx.Timeout(600, read=None if wait_for_token else 1.0)
            with client.stream(
                "POST", f"{stack.url}/v1/chat/completions", json=body, timeout=timeout
            ) as answer:
                for _ in answer.iter_bytes():
                    break
        except httpx.ReadTimeout:
            pass  # how a client leaves before the first byte
    left = time.monotonic()
    wait_for(lambda: not metric(stack, "vllm:num_requests_running"), "vLLM is free")
    gone = time.monotonic() - left
    with httpx.Client(timeout=600, headers=stack.headers) as client:
        began = time.monotonic()
        short = chat("Count to a hundred.", max_tokens=50, min_tokens=50)
        client.post(f"{stack.url}/v1/chat/completions", json=short).raise_for_status()
        fifty = time.monotonic() - began
    assert gone < fifty, "it went on for a good part of its 1,500 tokens"


# Two prompts of 5,000 tokens, of which a CPU without AVX-512 reads 80 in a second.
def test_a_long_conversation_stays_within_its_share_and_keeps_its_prefix(stack: Stack) -> None:
    messages = [{"role": "system", "content": "You are brief."}]
    for turn in range(120):
        messages.append({"role": "user", "content": f"Question {turn}: " + "what is in the file? " * 12})
        messages.append({"role": "assistant", "content": f"Answer {turn}: " + "it holds some text. " * 10})
    body = {"model": "coder", "max_tokens": 2, "temperature": 0}
    prompts = []
    for turn in range(3):
        messages.append({"role": "user", "content": f"And now {turn}?"})
        before = metric(stack, "vllm:prefix_cache_hits_total")
        answer = post(stack, "/v1/chat/completions", body | {"messages": messages})
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["x-duoserve-truncated-messages"]) > 20
        prompts.append(answer.json()["usage"]["prompt_tokens"])
        hits = metric(stack, "vllm:prefix_cache_hits_total") - before
        assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == hits
        messages.append({"role": "assistant", "content": "Fine."})
    assert all(WINDOW * 0.4 < prompt <= WINDOW * 0.75 for prompt in prompts)
    assert hits > 0.9 * prompts[-1], "the start of the prompt changed from one turn to the next"


def test_the_embedded_model_goes_on_from_the_prompt_and_says_that_it_ignored_the_suffix(stack: Stack) -> None:
    body = {"model": "coder", "prompt": "def add(a, b):\n    return", "max_tokens": 8, "temperature": 0}
    with_suffix = post(stack, "/v1/completions", body | {"suffix": "\n\nprint(add(1, 2))\n"})
    without = post(stack, "/v1/completions", body)
    assert with_suffix.headers["x-duoserve-suffix"] == "ignored"
    assert "x-duoserve-suffix" not in without.headers
    assert with_suffix.json()["choices"][0]["text"] == without.json()["choices"][0]["text"]
    assert "the model of 'coder' does not fill in the middle" in stack.logs()


def test_no_route_of_vllm_is_reached_without_a_key_or_with_a_wrong_one(stack: Stack) -> None:
    routes = httpx.get(f"{stack.engines['coder']}/openapi.json").json()["paths"]
    assert len(routes) > 20
    with httpx.Client(base_url=stack.url) as client:
        for path in {*routes, "/openapi.json", "/docs", "/metrics", "/v1/models"} - {"/health"}:
            for method, key in itertools.product(("GET", "POST"), ("", "wrong")):
                answer = client.request(method, path, headers={"x-api-key": key})
                assert answer.status_code in (401, 404, 405), f"{method} {path}"
                assert "vllm" not in answer.text.replace(path, "").lower()


def test_a_prompt_that_cannot_fit_is_refused_before_vllm_sees_it(stack: Stack) -> None:
    answer = post(stack, "/v1/chat/completions", chat("word " * 9000))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


WRONG_SHAPE = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}}


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("messages", [{"role": "user", "content": [{"type": "hologram"}]}]),
        ("structured_outputs", {"grammar": "root ::= ("}),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}},
        ),
        ("logit_bias", {"1000000": 1}),
        ("bad_words", [""]),
    ],
)
def test_what_vllm_refuses_is_said_in_its_words_without_its_name(
    stack: Stack, param: str, value: Any
) -> None:
    """Streamed or not: vLLM finds some of it only when the stream has begun."""
    for stream in (False, True):
        answer = post(stack, "/v1/chat/completions", chat("hi", max_tokens=4, stream=stream) | {param: value})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"].startswith(param)
        assert param in answer.json()["error"]["message"]
        assert not re.search("vllm|pydantic|errors for", answer.text, re.IGNORECASE)


def test_a_schema_that_xgrammar_cannot_take_changes_nothing_for_the_next(stack: Stack) -> None:
    """Without a backend named in the profile, vLLM would fail on every forced tool from then on."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 5}}, "required": ["n"]}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    direct = f"{stack.engines['general']}/v1/chat/completions"
    body = chat("Five.", model="general", max_tokens=20)
    httpx.post(direct, json=body | {"response_format": shape}, timeout=600)
    tool = {"type": "function", "function": {"name": "say", "parameters": schema}}
    answer = post(stack, "/v1/chat/completions", body | {"tools": [tool], "tool_choice": "required"})
    assert answer.status_code == 200, answer.text
    relaxed = post(stack, "/v1/chat/completions", body | {"response_format": shape})
    assert relaxed.status_code == 200
    assert relaxed.headers["x-duoserve-ignored"] == "response_format.multipleOf"
