"""What clients of every age send, and what the engine gets of it."""

from typing import Any

import pytest

from router.errors import ApiError
from router.exchange import Exchange
from router.models import Model
from router.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from router.steps.adapt_request import adapt_request

Json = dict[str, Any]
HI: list[Json] = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}}
LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
ADD = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}


def adapted(path: str, body: Json, greedy: bool = True, reasons: bool = False) -> tuple[Json, Exchange]:
    exchange = Exchange(path, alias="coder", body=body)
    model = Model("coder", ("http://x",), "m", 4, 1000, greedy=greedy, reasons=reasons)
    adapt_request(exchange, models={"coder": model})
    return exchange.body, exchange


def chat(**more: Any) -> tuple[Json, Exchange]:
    return adapted(CHAT, {"messages": list(HI), **more})


def ignored(exchange: Exchange) -> list[str]:
    return exchange.headers.get("x-duoserve-ignored", "").split(", ")


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "none"}])
def test_an_empty_list_of_tools_is_as_if_none_was_sent(choice: Json) -> None:
    assert chat(tools=[], **choice)[0] == {"messages": HI}
    assert chat(**choice)[0] == {"messages": HI}


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (CHAT, {"tools": [], "tool_choice": "required"}, "tool_choice"),
        (CHAT, {"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
        (CHAT, {"functions": [], "function_call": {"name": "add"}}, "function_call"),
        (RESPONSES, {"tool_choice": "required"}, "tool_choice"),
        (MESSAGES, {"tool_choice": {"type": "any"}}, "tool_choice"),
    ],
)
def test_a_tool_that_is_not_there_cannot_be_asked_for(path: str, more: Json, param: str) -> None:
    with pytest.raises(ApiError, match="has none") as caught:
        adapted(path, {"input": "hi"} | more if path == RESPONSES else {"messages": list(HI)} | more)
    assert caught.value.param == param


def test_messages_lose_their_nulls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    said = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call], "name": None}
    asked = {"role": "user", "content": "hi", "tool_calls": None, "function_call": None, "name": None}
    body, _ = adapted(CHAT, {"messages": [asked, said]})
    as_text = {**call, "function": {"name": "add", "arguments": '{"a":1}'}}
    assert body["messages"] == [*HI, {"role": "assistant", "content": None, "tool_calls": [as_text]}]


def test_the_parts_of_an_earlier_answer_need_no_type() -> None:
    parts = {"role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
    text = {"role": "assistant", "content": "hello"}
    body, _ = adapted(RESPONSES, {"input": [*HI, parts, text]})
    assert body["input"] == [*HI, {"type": "message", **parts}, text]


def test_items_of_tools_that_ran_elsewhere_are_left_out_and_named() -> None:
    refusal = {"role": "assistant", "type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    items = [*HI, {"type": "web_search_call", "id": "w"}, {"type": "compaction", "id": "c"}, refusal]
    body, exchange = adapted(RESPONSES, {"input": items})
    told = [{"type": "output_text", "text": "no", "annotations": []}]
    assert body["input"] == [*HI, refusal | {"content": told}]
    assert ignored(exchange) == ["input.web_search_call", "input.compaction"]
    with pytest.raises(ApiError, match="send the item itself"):
        adapted(RESPONSES, {"input": [{"type": "item_reference", "id": "m"}]})


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "file"), (RESPONSES, "input_file")])
def test_files_are_refused_with_the_remedy(path: str, kind: str) -> None:
    message = {"role": "user", "content": [{"type": kind}]}
    with pytest.raises(ApiError, match=f"'{kind}'; only text can be read"):
        adapted(path, {"input" if path == RESPONSES else "messages": [message]})


def test_what_is_left_out_is_told_in_a_header_that_proxies_pass() -> None:
    tools = [{"type": "custom", "name": f"patch_{i}" * 9, "format": {"type": "grammar"}} for i in range(128)]
    _, exchange = adapted(RESPONSES, {"input": "hi", "tools": tools})
    assert 1000 < len(exchange.headers["x-duoserve-ignored"]) < 3000


def test_functions_are_tools() -> None:
    messages = [
        *HI,
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "3"},
    ]
    body, _ = adapted(
        CHAT,
        {"messages": messages, "functions": [ADD["function"]], "function_call": {"name": "add"}},
    )
    assert body["tools"] == [ADD]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    call, result = body["messages"][1:]
    assert call["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}
    assert (result["role"], result["tool_call_id"]) == ("tool", call["tool_calls"][0]["id"])
    assert not {"functions", "function_call"} & (body.keys() | call.keys())
    assert body["parallel_tool_calls"] is False  # the old form has room for one


def test_only_the_allowed_tools_are_offered() -> None:
    one = {"type": "function", "function": {"name": "add"}}
    allowed: Json = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [one]}}
    body, _ = chat(tools=[LOOK_UP, ADD], tool_choice=allowed)
    assert (body["tools"], body["tool_choice"]) == ([ADD], "required")
    flat = [{"type": "function", "name": name, "parameters": SCHEMA} for name in ("look_up", "add")]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]}
    body, _ = adapted(RESPONSES, {"input": "hi", "tools": flat, "tool_choice": allowed})
    assert (body["tools"], body["tool_choice"]) == (flat[1:], "auto")


@pytest.mark.parametrize("schema", [{}, {"parameters": None}, {"parameters": {}}])
def test_arguments_are_an_object_whatever_the_schema_leaves_open(schema: Json) -> None:
    body, _ = chat(tools=[{"type": "function", "function": {"name": "f", **schema}}])
    assert body["tools"][0]["function"]["parameters"] == {"type": "object"}
    body, _ = adapted(MESSAGES, {"messages": HI, "tools": [{"name": "f", "input_schema": {}}]})
    assert body["tools"][0]["input_schema"] == {"type": "object"}


@pytest.mark.parametrize("kind", ["string", ["string", "null"]])
def test_arguments_that_are_no_object_are_refused(kind: Any) -> None:
    with pytest.raises(ApiError, match="not 'object'"):
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": kind}}}])
    nullable = {"type": "function", "function": {"name": "f", "parameters": {"type": ["object", "null"]}}}
    assert chat(tools=[nullable])[0]["tools"][0]["function"]["parameters"] == {"type": "object"}


def test_a_shape_without_a_schema_is_any_object() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": None}}
    assert chat(response_format=form)[0]["response_format"] == {"type": "json_object"}


def test_tools_that_run_elsewhere_are_left_out_and_named() -> None:
    function = {"type": "function", "name": "look_up", "parameters": SCHEMA}
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    namespace = {"type": "namespace", "name": "files", "tools": [function]}
    sent = [
        function,
        {"type": "custom", "name": "patch", "format": grammar},
        {"type": "web_search"},
        {"type": "mcp", "server_label": "x"},
        namespace,
    ]
    body, exchange = adapted(RESPONSES, {"input": "hi", "tools": sent, "tool_choice": {"type": "web_search"}})
    assert body["tools"] == [function, {"type": "custom", "name": "patch"}, namespace]
    assert "tool_choice" not in body
    assert ignored(exchange) == ["tools.web_search", "tools.mcp", "tools.patch.format", "tool_choice"]
    body, exchange = adapted(
        MESSAGES, {"messages": HI, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    )
    assert "tools" not in body
    assert ignored(exchange) == ["tools.web_search_20250305"]


def test_top_p_of_zero_is_greedy() -> None:
    assert chat(top_p=0)[0] == {"messages": HI, "temperature": 0}
    assert adapted(COMPLETIONS, {"prompt": "x", "top_p": 0})[0]["temperature"] == 0


@pytest.mark.parametrize(
    ("given", "greedy", "got"),
    [
        ({}, True, 1.0),
        ({}, False, None),
        ({"temperature": 0}, False, 0.01),
        ({"temperature": 0.7}, True, 0.7),
    ],
)
def test_several_choices_are_never_greedy(given: Json, greedy: bool, got: float | None) -> None:
    body, exchange = adapted(CHAT, {"messages": HI, "n": 2, **given}, greedy=greedy)
    assert body.get("temperature") == got
    assert exchange.headers.get("x-duoserve-set") == (
        f"temperature={got:g}" if got != given.get("temperature") else None
    )


def test_prompts_are_no_way_around_the_slots() -> None:
    for prompt, n, sequences in ((["x"] * 4, 1, 4), (["x"] * 2, 2, 4), ([1] * 100, 3, 3), ([[1], [2]], 1, 2)):
        _, exchange = adapted(COMPLETIONS, {"prompt": prompt, "n": n})
        assert exchange.sequences == sequences
    assert chat(n=3)[1].sequences == 3
    for many in ({"prompt": ["x"] * 5}, {"prompt": [[1, 2]] * 60}, {"prompt": ["x"] * 2, "n": 3}):
        with pytest.raises(ApiError, match="at most 4") as caught:
            adapted(COMPLETIONS, many)
        assert caught.value.param == "prompt"
    with pytest.raises(ApiError, match="at most 4"):
        chat(n=5)


def test_a_greedy_default_stays_for_one_choice() -> None:
    assert "temperature" not in chat(n=1)[0]


def test_a_budget_for_reasoning_is_for_models_that_reason() -> None:
    body = {"messages": HI, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    got, exchange = adapted(MESSAGES, dict(body))
    assert "thinking" not in got
    assert ignored(exchange) == ["thinking"]
    assert adapted(MESSAGES, dict(body), reasons=True)[0] == body
    got, exchange = chat(reasoning_effort="high")
    assert "reasoning_effort" not in got
    assert ignored(exchange) == ["reasoning_effort"]
    _, exchange = adapted(RESPONSES, {"input": "hi", "reasoning": {"effort": "high"}})
    assert ignored(exchange) == ["reasoning.effort"]
    _, exchange = adapted(MESSAGES, {"messages": HI, "output_config": {"effort": "high"}})
    assert ignored(exchange) == ["output_config.effort"]


def test_the_shape_of_a_message_is_passed_on() -> None:
    shape = {"type": "json_schema", "schema": SCHEMA}
    config = {"format": shape, "effort": "low"}
    got, _ = adapted(MESSAGES, {"messages": HI, "output_config": dict(config)}, reasons=True)
    assert got["output_config"] == {"format": shape, "effort": "low"}
    got, exchange = adapted(MESSAGES, {"messages": HI, "output_format": shape, "output_config": {"x": 1}})
    assert got["output_config"] == {"format": shape}
    assert ignored(exchange) == ["output_config.x"]


def test_documents_of_text_are_read() -> None:
    text = {"type": "document", "title": "T", "source": {"type": "text", "data": "one"}}
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "two"}]}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [text]}
    body, exchange = adapted(
        MESSAGES,
        {"messages": [{"role": "user", "content": [text, parts, result, {"type": "server_tool_use"}]}]},
    )
    first, second, third = body["messages"][0]["content"]
    assert first == {"type": "text", "text": "T\none"}
    assert second == {"type": "text", "text": "two"}
    assert third["content"] == [first]
    assert ignored(exchange) == ["messages.server_tool_use"]
    pdf = {"type": "document", "source": {"type": "base64", "data": "x"}}
    with pytest.raises(ApiError, match="'base64'"):
        adapted(MESSAGES, {"messages": [{"role": "user", "content": [pdf]}]})


def test_a_schema_loses_only_what_cannot_constrain() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "multipleOf": 5, "minimum": 1},
            "multipleOf": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "s": {"type": ["string", "null"], "format": "colour", "maxLength": 3},
            "p": {"type": "string", "pattern": "a*", "maxLength": 3},
        },
        "patternProperties": {"^x": {}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body, exchange = chat(response_format=form)
    assert body["response_format"]["json_schema"]["schema"] == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1},
            "multipleOf": {"type": "array", "items": {"type": "string"}},
            "s": {"type": ["string", "null"], "maxLength": 3},
            "p": {"type": "string", "pattern": "a*"},
        },
    }
    assert ignored(exchange) == [
        "response_format.format",
        "response_format.maxLength",
        "response_format.multipleOf",
        "response_format.patternProperties",
        "response_format.uniqueItems",
    ]


@pytest.mark.parametrize(
    ("path", "given", "got"), [(CHAT, 1, True), (CHAT, 0, False), (COMPLETIONS, True, 1)]
)
def test_logprobs_of_the_other_api(path: str, given: Any, got: Any) -> None:
    body = {"messages": HI} if path == CHAT else {"prompt": "x"}
    assert adapted(path, {**body, "logprobs": given})[0]["logprobs"] is got
