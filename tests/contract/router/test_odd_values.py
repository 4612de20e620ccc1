"""What no client means to send, such as objects where names belong, is never a failure of the router."""

import json
from typing import Any

import pytest

from router.paths import CHAT, COMPLETIONS, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from tests.support.service import Service, chat

Json = dict[str, Any]
ODD: Any = {"a": [1]}
NESTED = json.loads('{"content": ' * 220 + "[]" + "}" * 220)
FUNCTION: Json = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def messages(content: Any = "hi", **more: Any) -> Json:
    return {"model": "coder", "max_tokens": 4, "messages": [{"role": "user", "content": content}]} | more


def responses(given: Any = "hi", **more: Any) -> Json:
    return {"model": "coder", "input": given} | more


def tools(*given: Json, **more: Any) -> Json:
    return {"tools": list(given)} | more


BODIES: dict[str, tuple[str, Json]] = {
    "a function's name": (CHAT, chat(**tools({"type": "function", "function": {"name": ODD}}))),
    "a tool's type and name": (CHAT, chat(**tools({"type": ODD, "name": ODD}, tool_choice=ODD))),
    "an allowed tool's name": (
        CHAT,
        chat(**tools(FUNCTION, tool_choice={"type": "allowed_tools", "tools": [{"name": ODD}]})),
    ),
    "a response's tool": (RESPONSES, responses(**tools({"type": ODD, "name": ODD}))),
    "a namespace": (INPUT_TOKENS, responses(**tools({"type": "namespace", "name": "n", "tools": ODD}))),
    "a number in a namespace": (
        INPUT_TOKENS,
        responses(**tools({"type": "namespace", "name": "n", "tools": [1]})),
    ),
    "a message's tool": (MESSAGES, messages(**tools({"type": ["x"], "name": ODD}))),
    "a block's type": (MESSAGES, messages([{"type": ODD}, {"type": ["text"]}])),
    "a system block's type": (COUNT_TOKENS, messages(system=[{"type": ODD}])),
    "an item's type": (RESPONSES, responses([{"type": ODD}, {"type": ["message"], "content": [1]}])),
    "a schema's type and format": (
        CHAT,
        chat(structured_outputs={"json": {"type": ["string"], "format": ODD, "enum": ODD}}),
    ),
    "too large a number": (RESPONSES, responses(max_tool_calls=1e30)),
    "deep content": (CHAT, messages([{"type": "text", "text": "hi", "content": NESTED}])),
    "a deep former format": (MESSAGES, messages(output_format={"schema": NESTED})),
    "a prompt of nothing": (COMPLETIONS, {"model": "coder", "prompt": [[], []]}),
}


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_an_odd_value_is_no_failure_of_the_router(service: Service, path: str, body: Json) -> None:
    answer = service.post(path, body)
    assert answer.status_code in (200, 400), answer.text
