"""Who goes first in the engine: autocompletions before chats, and chats before agents."""

import asyncio
import threading
from typing import Any

import httpx
import pytest

from tests.support.service import ASK, Service, chat
from tests.support.waiting import wait_for

Json = dict[str, Any]
FIM: Json = {"model": "coder", "prompt": "def add(a, b):\n", "suffix": "\nadd(1, 2)", "max_tokens": 4}
FUNCTION: Json = {"name": "look", "parameters": {"type": "object", "properties": {}}}
TOOL: Json = {"type": "function", "function": FUNCTION}
LONG = "x" * 9000  # one token for the mock engine
NEVER = 1e8


def test_the_engine_learns_what_kind_of_request_it_is(service: Service) -> None:
    hello = [{"role": "user", "content": "hi"}]
    asked: list[tuple[str, Json, str]] = [
        ("/v1/completions", FIM, "keystroke"),
        ("/v1/completions", {"model": "coder", "prompt": "<|fim_prefix|>a<|fim_suffix|>b"}, "keystroke"),
        ("/v1/completions", {"model": "coder", "prompt": "Once upon"}, "chat"),
        ("/v1/chat/completions", chat(), "chat"),
        ("/v1/chat/completions", chat(tools=[]), "chat"),
        ("/v1/chat/completions", chat(tools=[TOOL]), "agent"),
        (
            "/v1/responses",
            {"model": "coder", "input": "hi", "tools": [FUNCTION | {"type": "function"}]},
            "agent",
        ),
        ("/v1/chat/completions", chat(service_tier="flex"), "background"),
        ("/v1/chat/completions", chat(service_tier="flex", tools=[TOOL]), "background"),
        ("/v1/completions", FIM | {"service_tier": "flex"}, "background"),
        ("/v1/chat/completions", chat(service_tier="priority"), "chat"),
        (
            "/v1/messages",
            {
                "model": "coder",
                "max_tokens": 4,
                "messages": hello,
                "tools": [{"name": "look", "input_schema": {"type": "object"}}],
            },
            "agent",
        ),
    ]
    answers = [service.post(path, body) for path, body, _ in asked]
    assert [answer.status_code for answer in answers] == [200] * len(asked)
    assert [service.record(answer)["priority"] for answer in answers] == [kind for *_, kind in asked]
    order = ["keystroke", "chat", "agent", "indexing", "background"]
    told = [int(request["headers"]["x-vllm-priority"]) for request in service.engines["coder"].requests()]
    assert told == [order.index(kind) for *_, kind in asked]


@pytest.mark.parametrize("name", ["x-vllm-priority", "x-pass-x-vllm-priority"])
def test_a_client_cannot_choose_its_priority(service: Service, name: str) -> None:
    answer = service.post("/v1/chat/completions", chat(priority=-5), **{name: "-5"})
    assert answer.status_code == 200 and answer.headers["x-duoserve-ignored"] == "priority"
    (request,) = service.engines["coder"].requests()
    assert request["headers"]["x-vllm-priority"] == "1" and "priority" not in request["body"]


def in_background(service: Service, path: str, body: Json) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    url, headers = f"{service.url}{path}", service.headers
    thread = threading.Thread(target=lambda: answers.append(ASK.post(url, json=body, headers=headers)))
    thread.start()
    return thread, answers


def reading(service: Service, count: int = 1) -> None:
    """Wait until the coder's engine has `count` requests."""
    wait_for(lambda: service.engines["coder"].state()["running"] == count, f"{count} requests run")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(LONG, tools=[TOOL])),
        ("/v1/chat/completions", chat(LONG)),
        ("/v1/messages", {"model": "coder", "max_tokens": 9, "messages": chat(LONG)["messages"]}),
        ("/v1/responses", {"model": "coder", "input": LONG}),
    ],
    ids=["agent", "chat", "messages", "responses"],
)
def test_a_long_prompt_gives_way_to_an_autocompletion(service: Service, path: str, body: Json) -> None:
    engine = service.engines["coder"]
    alone = service.post(path, body | {"stream": True})
    engine.reset()
    engine.set(ttft_ms=NEVER, times=1)
    thread, answers = in_background(service, path, body | {"stream": True})
    reading(service)
    assert service.post("/v1/completions", FIM).status_code == 200
    thread.join()
    first, completion, again = engine.requests()
    assert [entry["state"] for entry in (first, completion, again)] == ["aborted", "finished", "finished"]
    assert completion["path"] == "/v1/completions" and first["body"] == again["body"]
    (answer,) = answers
    assert answer.status_code == 200 and float(answer.headers["x-duoserve-gave-way-ms"]) > 0
    assert answer.text.count("data:") == alone.text.count("data:")
    record = service.record(answer)
    assert record["gave_way_ms"] > 0 and record["completion_tokens"]


@pytest.mark.parametrize(
    ("body", "knobs"),
    [
        (chat("short", stream=True), {"ttft_ms": NEVER}),
        (chat(LONG), {"ttft_ms": NEVER}),
        (chat(LONG, stream=True), {"stall_at": 1, "stall_ms": NEVER}),
    ],
    ids=["short", "not streamed", "already answering"],
)
def test_other_requests_stay_beside_an_autocompletion(service: Service, body: Json, knobs: Json) -> None:
    engine = service.engines["coder"]
    engine.set(times=1, **knobs)

    def begun() -> None:
        wait_for(lambda: engine.requests()[0]["chunks"], "the answer has begun")

    async def beside() -> Json:
        async with service.client() as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            try:
                await asyncio.to_thread(reading, service)
                if "stall_at" in knobs:
                    await asyncio.to_thread(begun)
                completion = await client.post("/v1/completions", json=FIM)
                assert completion.status_code == 200
                first: Json = engine.requests()[0]
                return first
            finally:
                asking.cancel()

    assert asyncio.run(beside())["state"] == "running"


def test_who_gives_way_can_leave(service: Service) -> None:
    engine = service.engines["coder"]
    engine.set(ttft_ms=NEVER)
    url = f"{service.url}/v1/chat/completions"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=chat(LONG, stream=True), headers=service.headers, timeout=1)
    wait_for(lambda: engine.state()["running"] == 0, "the engine is free")
    wait_for(lambda: service.gauge("duoserve_in_flight") == 0, "the slot is free")
