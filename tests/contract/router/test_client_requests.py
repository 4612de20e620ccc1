"""Valid requests that clients, gateways and suites are known to send, to an engine that refuses what vLLM
refuses.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.service import ASK, Json, Service, chat
from tests.support.waiting import until

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
HI = chat()["messages"]


@pytest.fixture(scope="module")
def reasoning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Models with a reasoning parser, which pages of another origin may call."""
    service = Service(
        tmp_path_factory.mktemp("reasoning"),
        window=8192,
        engine_config={"reasoning-parser": "x"},
        cors_origins="http://notes.example",
    )
    with service:
        yield service


@pytest.mark.parametrize(
    ("path", "body", "asked", "thinking", "text"),
    [
        (
            "/v1/chat/completions",
            chat(),
            {"thinking": {"type": "enabled"}},
            lambda event: (event["choices"] or [{"delta": {}}])[0]["delta"].get("reasoning"),
            lambda event: (event["choices"] or [{"delta": {}}])[0]["delta"].get("content"),
        ),
        (
            "/v1/messages",
            {"model": "coder", "max_tokens": 2000, "messages": HI},
            {"thinking": {"type": "adaptive"}},
            lambda event: event.get("delta", {}).get("thinking"),
            lambda event: event.get("delta", {}).get("text"),
        ),
        (
            "/v1/responses",
            {"model": "coder", "input": "hi"},
            {"reasoning": {"effort": "low"}},
            lambda event: event["type"] == "response.reasoning_text.delta" and event["delta"],
            lambda event: event["type"] == "response.output_text.delta" and event["delta"],
        ),
    ],
    ids=["chat", "messages", "responses"],
)
def test_thinking_is_asked_for_and_streamed_in_each_apis_own_form(
    reasoning: Service, path: str, body: Json, asked: Json, thinking: Any, text: Any
) -> None:
    reasoning.engines["coder"].set(reasoning_tokens=3, completion_tokens=4)
    answer = reasoning.post(path, body | asked | {"stream": True})
    assert answer.status_code == 200 and answer.headers["x-duoserve-set"] == "thinking=on"
    assert seen(reasoning)["chat_template_kwargs"] == {"enable_thinking": True}
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    parts = ["t" if thinking(event) else "a" for event in events if thinking(event) or text(event)]
    assert parts == ["t"] * 3 + ["a"] * 4
    whole = json.dumps(reasoning.post(path, body | {"stream": False} | asked).json())
    kept = {"/v1/messages": '"type": "thinking"', "/v1/responses": '"type": "reasoning"'}
    assert kept.get(path, '"reasoning": " ') in whole


def seen(service: Service) -> Json:
    """The body that the engine got last."""
    body: Json = service.engines["coder"].requests()[-1]["body"]
    return body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(tools=[])),
        ("/v1/chat/completions", chat(tools=[], tool_choice="auto")),
        (
            "/v1/chat/completions",
            chat(functions=None, function_call=None, audio=None, web_search_options=None),
        ),
        ("/v1/chat/completions", chat(top_p=0)),
        ("/v1/chat/completions", chat(n=2, temperature=0)),
        ("/v1/chat/completions", chat(max_tokens=8.0)),
        ("/v1/chat/completions", chat(logprobs=1)),
        ("/v1/chat/completions", {"messages": HI}),
        ("/v1/chat/completions", chat(messages=[{"role": "critic", "content": "x"}])),
        (
            "/v1/completions",
            {"model": "coder", "prompt": "a b", "max_tokens": 0, "echo": True, "logprobs": 1},
        ),
        (
            "/v1/responses",
            {"input": "hi", "previous_response_id": None, "conversation": None, "prompt": None},
        ),
        (
            "/v1/responses",
            {"input": "hi", "frequency_penalty": 0.5, "chat_template_kwargs": {"thinking": True}},
        ),
        ("/v1/messages", chat(max_tokens=4, container=None, cache_control=None, mcp_servers=None)),
        ("/v1/messages", chat(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})),
        ("/v1/messages", chat(max_tokens=32000, thinking={"type": "enabled", "budget_tokens": 31999})),
        ("/v1/messages", chat(max_tokens=4, cache_control={"type": "ephemeral", "ttl": "1h"})),
        ("/v1/messages", chat(max_tokens=4, context_management={"edits": []}, inference_geo="eu")),
    ],
)
def test_it_is_served(service: Service, path: str, body: Json) -> None:
    answer = service.post(path, body)
    assert answer.status_code == 200, answer.text


def test_what_was_left_out_is_named(service: Service) -> None:
    answer = service.post("/v1/chat/completions", chat(store=True, verbosity="low", cache_prompt=True))
    assert answer.headers["x-duoserve-ignored"] == "store, verbosity, cache_prompt"
    assert seen(service) == chat()
    quiet = service.post("/v1/chat/completions", chat(store=False, service_tier="auto"))
    assert "x-duoserve-ignored" not in quiet.headers


def test_the_shape_of_a_message_reaches_the_engine(service: Service) -> None:
    shape = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    service.post("/v1/messages", chat(max_tokens=4, output_config=shape))
    assert seen(service)["output_config"] == shape


def test_stored_responses_are_refused_with_the_remedy(service: Service) -> None:
    answer = service.post("/v1/responses", {"input": "hi", "previous_response_id": "resp_1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "previous_response_id")
    assert "send the whole conversation in 'input'" in error["message"]


@pytest.mark.parametrize("words", [1, 400])
def test_a_mixed_list_of_tools_is_the_same_whether_the_prompt_is_short_or_long(
    service: Service, words: int
) -> None:
    function = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}
    tools = [
        function,
        {"type": "web_search"},
        {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark"}},
        {"type": "namespace", "name": "files", "tools": [function]},
    ]
    items = [{"role": "user", "content": "word " * words} for _ in range(3)]
    answer = service.post("/v1/responses", {"input": items, "tools": tools, "max_output_tokens": 4})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-duoserve-ignored"] == "tools.web_search, tools.patch.format"
    assert [tool["type"] for tool in seen(service)["tools"]] == ["function", "custom", "namespace"]


async def test_answers_that_one_request_asks_for_take_a_slot_each(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=600_000)
    prompts = {"model": "coder", "prompt": ["a", "b", "c"], "max_tokens": 4}
    async with service.client() as client:
        first = asyncio.create_task(client.post("/v1/completions", json=prompts))
        await until(lambda: service.gauge("duoserve_in_flight") == 3, "one request has three slots")
        second = asyncio.create_task(client.post("/v1/chat/completions", json=chat(n=2)))
        await until(lambda: service.gauge("duoserve_waiting") == 1, "the other waits for two")
        first.cancel()
        await until(lambda: service.gauge("duoserve_in_flight") == 2, "it has them")
        second.cancel()
        await until(lambda: service.gauge("duoserve_in_flight") == 0, "all are given back")
    service.engines["coder"].set(ttft_ms=0)
    many = service.post("/v1/completions", {"model": "coder", "prompt": ["a"] * 100})
    assert (many.status_code, many.json()["error"]["param"]) == (400, "prompt")
    assert "asks for 100 answers" in many.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_answered_with_a_function_call(service: Service, stream: bool) -> None:
    service.engines["coder"].set(tool_call={"name": "look_up", "arguments": {"word": "tree"}})
    function = {"name": "look_up", "parameters": {"type": "object"}}
    answer = service.post("/v1/chat/completions", chat(functions=[function], stream=stream))
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        choices = [choice for event in events for choice in event["choices"]]
        calls = [choice["delta"].get("function_call", {}) for choice in choices]
        call = {key: "".join(part.get(key, "") for part in calls) for key in ("name", "arguments")}
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        choices = answer.json()["choices"]
        call = choices[0]["message"]["function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("look_up", {"word": "tree"})
    assert choices[-1]["finish_reason"] == "function_call"
    assert "tool_calls" not in answer.text
    assert seen(service)["tools"] == [{"type": "function", "function": function}]


THINKING = {"type": "enabled", "budget_tokens": 31999}


@pytest.mark.parametrize(
    ("words", "more", "got"),
    [
        (1, {"max_tokens": 32000, "thinking": THINKING}, "lowered"),
        (1, {"max_tokens": 2000.0, "thinking": THINKING}, "lowered"),
        (1, {"max_tokens": 3000, "thinking": THINKING | {"budget_tokens": 1024}}, 1024),
        (1, {"max_tokens": 1024, "thinking": THINKING | {"budget_tokens": 1024}}, None),
        (5900, {"max_tokens": 32000, "thinking": THINKING}, "lowered"),
        (5900, {"max_tokens": 32000, "thinking": THINKING | {"budget_tokens": 16000.0}}, "lowered"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_for_reasoning_stays_below_the_answers_limit(
    reasoning: Service, words: int, more: Json, got: Any, stream: bool
) -> None:
    body = chat("word " * words, **more, stream=stream)
    answer = reasoning.post("/v1/messages", body)
    assert answer.status_code == 200, answer.text
    sent = seen(reasoning)
    if got is None:
        assert "thinking" not in sent
        assert answer.headers["x-duoserve-ignored"] == "thinking"
        return
    budget = sent["thinking"]["budget_tokens"]
    assert 1024 <= budget < sent["max_tokens"]
    assert budget == (sent["max_tokens"] - 1 if got == "lowered" else got)
    told = answer.headers.get("x-duoserve-set", "")
    assert (f"thinking.budget_tokens={budget}" in told) == (got == "lowered")
    assert (f"max_tokens={sent['max_tokens']}" in told) == (sent["max_tokens"] != more["max_tokens"])


def test_min_tokens_is_lowered_with_max_tokens(service: Service) -> None:
    answer = service.post("/v1/chat/completions", chat("word " * 400, max_tokens=5000, min_tokens=4000))
    most = seen(service)["max_tokens"]
    assert seen(service)["min_tokens"] == most < 1000
    assert answer.headers["x-duoserve-set"] == f"max_tokens={most}, min_tokens={most}"


def test_a_response_has_the_fields_of_openais(service: Service) -> None:
    expected = {"error": None, "store": False, "safety_identifier": None, "prompt_cache_key": None}
    whole = service.post("/v1/responses", {"input": "hi"}).json()
    assert expected.items() <= whole.items()
    assert isinstance(whole["completed_at"], int)
    streamed = service.post("/v1/responses", {"input": "hi", "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    objects = [event["response"] for event in events if "response" in event]
    assert all(expected.items() <= response.items() for response in objects)
    assert [type(response["completed_at"]) for response in objects] == [type(None), type(None), int]


@pytest.mark.parametrize("fault", ["drop_at", "error_at"])
def test_the_error_at_the_end_of_a_stream_of_events_is_numbered(service: Service, fault: str) -> None:
    answer = service.post("/v1/responses", {"input": f'mock:{{"{fault}": 3}}', "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/coder",
        "/v1/models/openai/coder",
        "/models/coder",
        "/v1/models/gpt-4o",
        "/v1/v1/models/CODER",
    ],
)
def test_one_model(service: Service, path: str) -> None:
    model = ASK.get(f"{service.url}{path}", headers=service.headers)
    assert model.status_code == 200
    assert model.json()["root"] == ("general" if "gpt" in path else "coder")
    assert model.json()["type"] == model.json()["object"] == "model"


def test_an_unknown_model_is_404(service: Service) -> None:
    answer = ASK.get(f"{service.url}/v1/models/gpt-99", headers=service.headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/coder", "/metrics"])
def test_head_is_get_without_a_body(service: Service, path: str) -> None:
    answer = ASK.head(f"{service.url}{path}", headers=service.headers)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/", "/v1/chat/completions"]
)
def test_a_base_url_with_or_without_v1_is_right(service: Service, path: str) -> None:
    answer = service.post(path, chat())
    assert answer.status_code == 200
    assert service.record(answer)["path"] == "/v1/chat/completions"


def test_the_api_key_header_of_azures_clients(service: Service) -> None:
    key = service.headers["authorization"].removeprefix("Bearer ")
    assert ASK.get(f"{service.url}/v1/models", headers={"api-key": key}).status_code == 200
    assert ASK.get(f"{service.url}/v1/models", headers={"api-key": "wrong"}).status_code == 401


def test_input_tokens_are_counted_without_a_slot(service: Service) -> None:
    short, long = (
        service.post("/v1/responses/input_tokens", {"model": "coder", "input": text, "tools": [TOOL]})
        for text in ("hi", "word " * 50)
    )
    assert short.json()["object"] == "response.input_tokens"
    assert long.json()["input_tokens"] == short.json()["input_tokens"] + 49
    assert "x-duoserve-queue-position" not in long.headers


def test_anthropics_request_id(service: Service) -> None:
    answer = service.post("/v1/messages", chat(max_tokens=4))
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert "request-id" not in service.post("/v1/chat/completions", chat()).headers


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_read(service: Service, encoding: str, compress: Any) -> None:
    def post(raw: bytes) -> httpx.Response:
        headers = service.headers | {"content-encoding": encoding}
        return ASK.post(f"{service.url}/v1/chat/completions", content=raw, headers=headers)

    assert post(compress(json.dumps(chat()).encode())).status_code == 200
    assert post(b"no such format").status_code == 400
    assert post(compress(json.dumps(chat()).encode())[:-9]).status_code == 400
    assert post(compress(b" " * 50_000_000)).status_code == 413


def test_another_compression_is_named(service: Service) -> None:
    headers = service.headers | {"content-encoding": "zstd"}
    answer = ASK.post(f"{service.url}/v1/chat/completions", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert "'zstd'" in answer.json()["error"]["message"]


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [260, 3000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat() | {"metadata": "@"}),
        ("/v1/chat/completions", {"model": "coder", "messages": [{"role": "user", "content": [{"x": "@"}]}]}),
        ("/v1/chat/completions", chat(tools=[{"type": "function", "function": {"parameters": "@"}}])),
        ("/v1/completions", {"model": "coder", "prompt": "x", "structured_outputs": {"json": "@"}}),
        ("/v1/responses", {"input": "x", "text": "@"}),
        ("/v1/responses/input_tokens", {"input": "x", "text": "@"}),
        ("/v1/messages", chat(max_tokens=5, tools=["@"])),
        ("/v1/messages/count_tokens", chat(tools=["@"])),
    ],
)
def test_deep_nesting_is_told(service: Service, path: str, body: Json, depth: int) -> None:
    raw = json.dumps(body).replace('"@"', '{"a":' * depth + "1" + "}" * depth)
    answer = ASK.post(f"{service.url}{path}", content=raw, headers=service.headers)
    assert answer.status_code == 400
    assert "nested too deeply" in answer.text


def test_nesting_up_to_the_limit_is_served(service: Service) -> None:
    part = {"type": "text", "text": "hi", "x": nested(225)}
    assert service.post(
        "/v1/chat/completions", chat(messages=[{"role": "user", "content": [part]}])
    ).is_success
    # What constrains an answer is bounded more tightly, as in vLLM.
    tools = [{"name": "f", "input_schema": nested(50)}]
    assert service.post("/v1/messages/count_tokens", chat(tools=tools)).is_success


def test_usage_that_was_not_asked_for_is_in_no_event(service: Service) -> None:
    options = {"include_usage": False, "continuous_usage_stats": True}
    answer = service.post("/v1/chat/completions", chat(stream=True, stream_options=options))
    assert '"usage"' not in answer.text
    assert not seen(service)["stream_options"].get("continuous_usage_stats")
    assert service.record(answer)["completion_tokens"] == 16


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [True, False])
def test_cached_tokens_are_recorded(service: Service, path: str, stream: bool) -> None:
    service.engines["coder"].set(cached_tokens=3)
    words = "one two three four five six seven " * 4
    body = {"input": words} if path == "/v1/responses" else chat(words, max_tokens=4)
    plain = service.record(service.post("/v1/responses", {"input": words}))["prompt_tokens"]
    record = service.record(service.post(path, body | {"model": "coder", "stream": stream}))
    assert record["cached_tokens"] == 3
    assert record["prompt_tokens"] == plain


def test_an_engines_refusal_is_a_sentence(service: Service) -> None:
    dump = (
        "2 validation errors:\n  {'type': 'string_type', 'loc': 'body.messages.0.content', 'msg': 'Input "
        "should be a valid string', 'input': 'secret'}\n  {'type': 'literal_error', 'loc': "
        "'body.messages.0.content.0.type', 'msg': \"Input should be 'text' or 'image'\", 'input': 'secret'}"
    )
    service.engines["coder"].set(status=400, error_message=dump, times=1)
    error = service.post("/v1/chat/completions", chat()).json()["error"]
    assert error["message"] == "'messages.0.content.0.type' is not valid: input should be 'text' or 'image'."
    assert error["param"] == "messages.0.content.0.type"
    flags = "a budget is set but reasoning is not configured. Please set --reasoning-parser to use it."
    service.engines["coder"].set(status=400, error_message=flags, times=1)
    error = service.post("/v1/chat/completions", chat()).json()["error"]
    assert error["message"] == "a budget is set but reasoning is not configured."


def test_a_long_conversation_of_parts_and_calls_is_cut(service: Service) -> None:
    messages: list[Json] = []
    for turn in range(30):
        call = {
            "id": f"c{turn}",
            "type": "function",
            "function": {"name": "look_up", "arguments": '{"a": 1}'},
        }
        messages += [
            {"role": "user", "content": [{"type": "text", "text": "word " * 30}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{turn}", "content": [{"type": "text", "text": "word " * 20}]},
            {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
        ]
    answer = service.post(
        "/v1/chat/completions", {"model": "coder", "messages": [*messages, *HI], "tools": [TOOL]}
    )
    assert answer.status_code == 200
    assert int(answer.headers["x-duoserve-truncated-messages"]) % 4 == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_a_stream_that_begins_with_an_error_has_its_status(service: Service, path: str) -> None:
    content: Json = {"max_tokens": 4, "messages": HI}
    if path == "/v1/completions":
        content = {"prompt": "hi"}
    elif path == "/v1/responses":
        content = {"input": "hi"}
    service.engines["coder"].set(error_at=0, error_message="EngineCore failed", times=1)
    answer = service.post(path, content | {"model": "coder", "stream": True})
    assert answer.status_code == 503
    assert "EngineCore" not in answer.text
    assert "failed to answer" in answer.text
    assert service.record(answer)["error"] == "engine_failed"


PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def test_browsers_are_refused_unless_asked_for(service: Service) -> None:
    headers = {"origin": "http://notes.example", **PREFLIGHT}
    answer = ASK.options(f"{service.url}/v1/chat/completions", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    answer = service.post("/v1/chat/completions", chat(), origin="http://notes.example")
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_the_origins_in_the_setting_may_call(reasoning: Service) -> None:
    service, url = reasoning, f"{reasoning.url}/v1/chat/completions"
    answer = ASK.options(url, headers={"origin": "http://notes.example", **PREFLIGHT})
    assert answer.is_success
    assert answer.headers["access-control-allow-origin"] == "http://notes.example"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    refused = ASK.options(url, headers={"origin": "http://other.example", **PREFLIGHT})
    assert "access-control-allow-origin" not in refused.headers
    for body in (chat(stream=True), chat(temperature="hot")):
        answer = service.post("/v1/chat/completions", body, origin="http://notes.example")
        assert answer.headers["access-control-allow-origin"] == "http://notes.example"
