"""What an answer is constrained with, on its way through the router."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.service import Service, chat

Json = dict[str, Any]
GOOD: Json = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5000}}}
BAD: Json = {"type": "object", "properties": {"name": {"$ref": "#/$defs/missing"}}}
BRACKETS = "(" * 90 + "a" + ")" * 90 + "["


def bodies(schema: Json) -> list[tuple[str, str, Json]]:
    """Path, parameter and body of requests with a schema in every place that takes one."""
    messages = {"model": "coder", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    form = {"type": "json_schema", "name": "n", "schema": schema}
    return [
        (
            "/v1/chat/completions",
            "response_format",
            chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}),
        ),
        (
            "/v1/chat/completions",
            "tools.1",
            chat(
                tools=[
                    {"type": "function", "function": {"name": f"f{n}", "parameters": each}}
                    for n, each in enumerate([GOOD, schema])
                ]
            ),
        ),
        (
            "/v1/completions",
            "structured_outputs.json",
            {"model": "coder", "prompt": "", "structured_outputs": {"json": schema}},
        ),
        ("/v1/responses", "text.format", {"model": "coder", "input": "hi", "text": {"format": form}}),
        ("/v1/messages", "output_config.format", messages | {"output_config": {"format": form}}),
        ("/v1/messages", "tools.0", messages | {"tools": [{"name": "f", "input_schema": schema}]}),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_compiled_is_a_400_that_names_it(service: Service, stream: bool) -> None:
    for path, param, body in bodies(BAD):
        answer = service.post(path, body | {"stream": stream})
        assert answer.status_code == 400, answer.text
        assert param in answer.text and "missing" in answer.text
    assert service.engines["coder"].requests() == []
    for path, _, body in bodies(GOOD):
        assert service.post(path, body | {"stream": stream}).status_code == 200


def test_other_structures_too(service: Service) -> None:
    for kind, value in (("regex", BRACKETS), ("grammar", "root ::= x"), ("structural_tag", json.dumps({}))):
        answer = service.post("/v1/chat/completions", chat(structured_outputs={kind: value}))
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == f"structured_outputs.{kind}"
    assert service.engines["coder"].requests() == []


def test_tools_that_may_not_be_called_are_not_compiled(service: Service) -> None:
    _, _, body = bodies(BAD)[1]
    assert service.post("/v1/chat/completions", body | {"tool_choice": "none"}).status_code == 200


def sandboxes(service: Service) -> list[psutil.Process]:
    """The processes that the router has started."""
    assert service.router
    return psutil.Process(service.router.child.pid).children(recursive=True)


def test_the_compiler_is_loaded_once_and_only_when_it_is_needed(tmp_path: Path) -> None:
    """It takes a fifth of the router's memory."""
    with Service(tmp_path) as service:
        for path, body in (
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat(response_format={"type": "json_object"}, stream=True)),
            ("/v1/completions", {"model": "coder", "prompt": "a", "suffix": "b"}),
        ):
            assert service.post(path, body).status_code == 200
        assert sandboxes(service) == []
        for number in range(2):
            path, _, body = bodies(GOOD | {"title": str(number)})[0]
            assert service.post(path, body).status_code == 200
            if not number:
                first = sandboxes(service)
        assert first and sandboxes(service) == first
