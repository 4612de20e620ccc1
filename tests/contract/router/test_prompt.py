import asyncio
import json
import time
from statistics import median
from typing import Any

import pytest

from tests.support.service import WINDOW, Service, chat

BUDGET = WINDOW * 3 // 4


@pytest.fixture(autouse=True)
def echo(service: Service) -> None:
    for engine in service.engines.values():
        engine.set(echo=True)


def seen(service: Service, alias: str = "coder") -> dict[str, Any]:
    """The body that the engine got last."""
    body: dict[str, Any] = service.engines[alias].requests()[-1]["body"]
    return body


def conversation(turns: int) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": "be brief"}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"question {turn} " * 10})
        messages.append({"role": "assistant", "content": f"answer {turn} " * 10})
    return [*messages, {"role": "user", "content": "the last question"}]


def test_a_prompt_that_fits_is_left_alone(service: Service) -> None:
    messages = conversation(3)
    answer = service.post("/v1/chat/completions", {"model": "coder", "messages": messages})
    assert seen(service)["messages"] == messages
    assert "x-duoserve-truncated-messages" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_long_conversation_loses_its_oldest_turns_and_says_so(service: Service, path: str) -> None:
    messages = conversation(40)
    key = "input" if path == "/v1/responses" else "messages"
    body: dict[str, Any] = {"model": "coder", key: messages}
    if path == "/v1/messages":
        body |= {"max_tokens": 50, "system": "be brief", "messages": messages[1:]}
    answer = service.post(path, body)
    assert answer.status_code == 200
    kept = seen(service)[key]
    assert kept[-1] == messages[-1]
    assert len(kept) < len(messages) - 10
    assert int(answer.headers["x-duoserve-truncated-messages"]) == len(body[key]) - len(kept)
    assert int(answer.headers["x-duoserve-truncated-tokens"]) > 0
    system = 0 if path == "/v1/messages" else 1
    assert kept[:system] == messages[:system]
    assert kept[system:] == messages[system - len(kept) :]
    assert service.record(answer)["truncated_messages"] == len(body[key]) - len(kept)


def test_the_kept_prompt_is_within_its_share(service: Service) -> None:
    answer = service.post("/v1/chat/completions", {"model": "coder", "messages": conversation(40)})
    usage = service.record(answer)["prompt_tokens"]
    assert BUDGET / 2 < usage <= BUDGET


def test_what_cannot_be_shortened_is_refused_as_openai_does(service: Service) -> None:
    answer = service.post("/v1/chat/completions", chat("word " * 900))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_max_tokens_is_clamped_to_what_is_left(service: Service) -> None:
    service.post("/v1/chat/completions", chat("word " * 400, max_tokens=100_000))
    left = seen(service)["max_tokens"]
    assert WINDOW - 450 < left <= WINDOW - 400
    service.post("/v1/chat/completions", chat("word " * 400, max_tokens=10))
    assert seen(service)["max_tokens"] == 10


@pytest.mark.parametrize("stream", [True, False])
def test_suffix_becomes_the_models_own_prompt(service: Service, stream: bool) -> None:
    body = {"model": "coder", "prompt": "def f(", "suffix": "return x", "stop": ["\n\n"], "stream": stream}
    assert service.post("/v1/completions", body).status_code == 200
    got = seen(service)
    assert got["prompt"] == "<|fim_prefix|>def f(<|fim_suffix|>return x<|fim_middle|>"
    assert "suffix" not in got
    assert {"\n\n", "<|fim_middle|>", "<|endoftext|>"} <= set(got["stop"])


def test_the_clients_own_fim_prompt_is_untouched(service: Service) -> None:
    raw = "<|repo_name|>x<|file_sep|>a.py\n<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    body = {"model": "coder", "prompt": raw, "stop": ["x"], "max_tokens": 5, "temperature": 0.1}
    service.post("/v1/completions", body)
    assert seen(service) == body


def test_a_model_without_fim_says_which_has_it(service: Service) -> None:
    answer = service.post("/v1/completions", {"model": "general", "prompt": "a", "suffix": "b"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "suffix"
    assert "'coder'" in answer.json()["error"]["message"]


def test_a_long_fim_prompt_keeps_what_is_near_the_cursor(service: Service) -> None:
    prefix = "\n".join(f"line {i} before" for i in range(600))
    suffix = "\n".join(f"line {i} after" for i in range(600))
    answer = service.post(
        "/v1/completions", {"model": "coder", "prompt": prefix, "suffix": suffix, "max_tokens": 20}
    )
    assert answer.status_code == 200
    prompt = seen(service)["prompt"]
    kept_prefix, _, rest = prompt.removeprefix("<|fim_prefix|>").partition("<|fim_suffix|>")
    kept_suffix = rest.removesuffix("<|fim_middle|>")
    assert prefix.endswith(kept_prefix)
    assert kept_prefix.startswith("line ")
    assert suffix.startswith(kept_suffix)
    assert kept_suffix
    assert len(kept_prefix) > len(kept_suffix)
    assert service.record(answer)["prompt_tokens"] <= BUDGET
    assert int(answer.headers["x-duoserve-truncated-tokens"]) > 1000


def test_no_tokens_are_counted_when_the_prompt_fits_anyway(service: Service) -> None:
    engine = service.engines["coder"]
    engine.set(record_tokenize=True)
    service.post("/v1/chat/completions", chat("short", max_tokens=50))
    assert [request["path"] for request in engine.requests()] == ["/v1/chat/completions"]
    service.post("/v1/chat/completions", chat("word " * 300))
    assert "/tokenize" in [request["path"] for request in engine.requests()]


def test_tools_count(service: Service) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "word " * 500, "parameters": {"type": "object"}},
    }
    answer = service.post(
        "/v1/chat/completions", {"model": "coder", "messages": conversation(15), "tools": [tool]}
    )
    assert answer.status_code == 200
    assert int(answer.headers["x-duoserve-truncated-messages"]) > 0
    assert json.dumps(seen(service)["tools"]) == json.dumps([tool])


LARGE = {
    "15 MB of text": {"messages": [{"role": "user", "content": "hello world " * 1_250_000}]},
    "15,000 messages": {"messages": [{"role": "user", "content": "hi"}] * 15_000},
    "300,000 messages": {"messages": [{"role": "user", "content": "hi"}] * 300_000},
    "text that is just read": {"messages": [{"role": "user", "content": "hello world " * 80_000}]},
    "a conversation of many turns": {
        "messages": [
            {"role": ("user", "assistant")[number % 2], "content": "hello world " * 80}
            for number in range(901)
        ]
    },
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("kind", LARGE)
async def test_others_do_not_wait_for_what_is_far_too_long(service: Service, kind: str, path: str) -> None:
    """The time to another's first token, beside such requests, compared with the time without them."""
    service.engines["general"].set(ttft_ms=200, completion_tokens=1)
    body = json.dumps({"model": "coder"} | LARGE[kind]).encode()
    fits = "turns" in kind or ("just" in kind and "count" in path)

    async with service.client() as client:

        async def others(count: int = 5) -> float:
            times = []
            for _ in range(count):
                started = time.perf_counter()
                answer = await client.post("/v1/chat/completions", json=chat(model="general", stream=True))
                times.append(time.perf_counter() - started)
                assert answer.status_code == 200
            return median(times)

        async def send() -> None:
            while True:
                answer = await client.post(path, content=body)
                answers.add(answer.status_code)

        answers: set[int] = set()
        alone = await others()
        sending = asyncio.create_task(send())
        beside = await others()
        sending.cancel()
    assert beside < 1.5 * alone
    assert answers <= {200 if fits else 400}
