"""The running service as a client sees it: real text from two real models through one endpoint."""

import subprocess
import time
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.support.stack import Stack

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}  # as in the README, and sampled as it comes
]


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0)


@pytest.mark.parametrize("model", ["coder", "general"])
def test_answers_a_question(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=40,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.model == model


@pytest.mark.parametrize("model", ["coder", "general"])
def test_streams_the_same_answer_piece_by_piece(client: openai.OpenAI, model: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens >= len(pieces) - 1


def test_completes_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="coder", prompt="1, 2, 3, 4, 5, 6,", temperature=0, max_tokens=8)
    assert "7" in answer.choices[0].text


def test_lists_models_that_can_be_asked_and_no_engine(stack: Stack) -> None:
    models = httpx.get(f"{stack.url}/v1/models", headers=stack.headers).json()["data"]
    names = {model["id"] for model in models}
    assert {"coder", "general"} <= names
    assert not any("/" in name and "hosted_vllm" in name for name in names)


def _error(response: httpx.Response) -> Any:
    error = response.json()["error"]
    assert error["message"]
    assert {"type", "param", "code"} <= set(error)
    return error


def test_refuses_strangers_and_unknown_models(stack: Stack) -> None:
    body = {"model": "coder", "messages": QUESTION}
    chat = f"{stack.url}/v1/chat/completions"
    no_key = httpx.post(chat, json=body)
    wrong_key = httpx.post(chat, json=body, headers={"Authorization": "Bearer sk-wrong"})
    unknown = httpx.post(chat, json=body | {"model": "gpt-17"}, headers=stack.headers)
    assert (no_key.status_code, wrong_key.status_code, unknown.status_code) == (401, 401, 404)
    assert "gpt-17" in _error(unknown)["message"]
    assert _error(no_key)["type"] and _error(wrong_key)["type"]


def test_the_curl_line_that_up_prints_works(stack: Stack) -> None:
    printed = stack.run("up").stdout
    line = next(line for line in printed.splitlines() if "curl" in line)
    answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=300)
    assert '"content":' in answer.stdout.replace('" :', '":'), answer.stderr


def test_the_key_is_in_no_log_and_no_process_list(stack: Stack) -> None:
    assert stack.key not in stack.logs()
    for process in stack.processes():
        assert not any(stack.key in argument for argument in process.cmdline())


def test_the_chat_app_answers(stack: Stack) -> None:
    page = httpx.get(stack.ui_url)
    assert page.status_code == 200 and '<div id="root">' in page.text
    assert stack.key not in page.text


def _slowness() -> float:
    """How many times as long a loop takes here as on the Xeon of docs/benchmarks (2026-11-28); at least 1."""
    began, total = time.process_time(), 0
    for number in range(2_000_000):
        total += number
    return max(1.0, (time.process_time() - began) / 0.08)


def test_router_and_chat_app_cost_little_when_nobody_asks(stack: Stack) -> None:
    """Less than 2 % of a core each, the health checks by their guards included."""
    before, began = {name: stack.cpu_seconds(name) for name in ("router", "ui")}, time.monotonic()
    slowness = _slowness()
    time.sleep(10)
    seconds = time.monotonic() - began
    shares = {name: (stack.cpu_seconds(name) - used) / seconds for name, used in before.items()}
    assert max(shares.values()) < 0.02 * slowness, shares


def test_nothing_listens_outside_loopback(stack: Stack) -> None:
    listening = [
        connection.laddr.ip
        for process in stack.processes()
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    ]
    assert len(listening) >= 4
    assert {address for address in listening if not address.startswith("127.")} == set()


def test_up_when_up_changes_nothing(stack: Stack) -> None:
    before = stack.status()["services"]
    again = stack.run("up")
    assert again.returncode == 0 and "already up" in again.stdout
    after = stack.status()["services"]
    assert {n: s["pid"] for n, s in before.items()} == {n: s["pid"] for n, s in after.items()}
    assert all(s["state"] == "ready" for s in after.values())


def test_logs_show_the_end_of_what_a_service_wrote(stack: Stack) -> None:
    written = (stack.home / "data" / "logs" / "coder.log").read_text().splitlines()
    assert written[-1] in stack.run("logs", "coder").stdout
