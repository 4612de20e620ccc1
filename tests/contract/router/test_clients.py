"""The clients that people use, against the router: what they send is taken, what they get is understood."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionToolUnionParam
from pydantic import BaseModel

from tests.support.service import KEY, Service, chat

NODE = Path(__file__).with_name("node")
TOOL: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_openai_python(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="coder", messages=[{"role": "user", "content": "hi"}], max_tokens=5
    )
    assert answer.usage
    assert answer.usage.completion_tokens == 5
    stream = client.chat.completions.create(
        model="coder", messages=[{"role": "user", "content": "hi"}], max_tokens=5, stream=True
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer.choices[0].message.content
    assert all(chunk.usage is None for chunk in chunks)
    completion = client.completions.create(model="coder", prompt="def f(", suffix="return 1", max_tokens=5)
    assert completion.choices[0].text
    response = client.responses.create(model="general", input="hi", max_output_tokens=5)
    assert response.output_text
    events = client.responses.create(model="general", input="hi", max_output_tokens=5, stream=True)
    assert [event.type for event in events][-1] == "response.completed"
    assert {"coder", "general"} <= {model.id for model in client.models.list()}


def test_tools_and_structured_output(client: openai.OpenAI, service: Service) -> None:
    service.engines["coder"].set(tool_call={"name": "weather", "arguments": {"city": "Rome"}}, times=1)
    first = client.chat.completions.create(
        model="coder", messages=[{"role": "user", "content": "weather?"}], tools=[TOOL]
    )
    calls = first.choices[0].message.tool_calls
    assert calls
    call = calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    second = client.chat.completions.create(
        model="coder",
        messages=[
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "tool_calls": [call.to_dict()]},  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        tools=[TOOL],
    )
    assert second.choices[0].message.content

    class Town(BaseModel):
        name: str

    service.engines["coder"].set(text='{"name":"Rome"}', times=1)
    parsed = client.chat.completions.parse(
        model="coder", messages=[{"role": "user", "content": "a town"}], response_format=Town
    )
    assert parsed.choices[0].message.parsed == Town(name="Rome")
    sent = service.engines["coder"].requests()[-1]["body"]["response_format"]
    assert sent["json_schema"]["schema"]["properties"] == {"name": {"title": "Name", "type": "string"}}


def test_errors_are_the_clients_own(client: openai.OpenAI, service: Service) -> None:
    hi = chat()["messages"]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="x", messages=hi)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="coder", messages=hi, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.APIError, match="failed to answer"):
        broken = chat('mock:{"drop_at": 3}')["messages"]
        list(client.chat.completions.create(model="coder", messages=broken, stream=True))


def test_anthropic_python(service: Service) -> None:
    with anthropic.Anthropic(base_url=service.url, api_key=KEY, max_retries=0) as client:
        hi: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]
        answer = client.messages.create(model="coder", max_tokens=5, messages=hi, system="be brief")
        assert answer.content[0].type == "text"
        assert answer.usage.output_tokens == 5
        with client.messages.stream(model="coder", max_tokens=5, messages=hi) as stream:
            assert "".join(stream.text_stream)
        assert client.messages.count_tokens(model="coder", messages=hi).input_tokens > 0
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            client.messages.create(model="x", max_tokens=5, messages=hi)


@pytest.fixture(scope="session")
def node_modules() -> str:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    if not (NODE / "node_modules" / "openai").exists():
        install = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=NODE, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install the client: {done.stderr.strip().splitlines()[-1:]}")
    return str(shutil.which("node"))


def test_openai_node(service: Service, node_modules: str) -> None:
    environment = os.environ | {"BASE_URL": f"{service.url}/v1", "API_KEY": KEY}
    done = subprocess.run(
        [node_modules, "client.mjs"], cwd=NODE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["streamed"] == got["text"] != ""
    assert got["usage"]["completion_tokens"] == 5
    assert got["completion"]
    assert got["response"]
    assert {"coder", "general"} <= set(got["models"])
    assert got["errors"]["unknown"] == ["NotFoundError", 404, "model_not_found", "model"]
    assert got["errors"]["wrong"] == ["BadRequestError", 400, "invalid_value", "temperature"]
