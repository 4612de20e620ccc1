"""The client against a mock engine, which fails in every way that a router can."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from mock_engine import MockEngine
from tests.support.waiting import until
from ui.router_client import ChatRequest, Ended, Event, Piece, RouterClient, RouterFailure, Started
from ui.settings import AppSettings


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with MockEngine() as running:
        yield running.url


@pytest.fixture
async def router(engine: str) -> AsyncIterator[RouterClient]:
    client = RouterClient(settings(engine))
    yield client
    await client.close()


def settings(router: str) -> AppSettings:
    return AppSettings.model_construct(router_url=router, litellm_master_key=SecretStr("k" * 32))


def asked(continue_last: bool = False, **knobs: Any) -> ChatRequest:
    question = f"mock:{json.dumps(knobs)}" if knobs else "Hello"
    return ChatRequest("coder", [{"role": "user", "content": question}], None, None, 50, "me", continue_last)


async def events(router: RouterClient, request: ChatRequest) -> list[Event]:
    return [event async for event in router.stream(request)]


def said(engine: str) -> Any:
    with urllib.request.urlopen(f"{engine}/mock") as answer:
        return json.load(answer)


async def test_an_answer_comes_in_pieces_with_reasoning_and_counts(router: RouterClient) -> None:
    start, *pieces, end = await events(router, asked(completion_tokens=5, reasoning_tokens=2))
    assert start == Started(0, 0)
    assert [bool(piece.reasoning) for piece in pieces if isinstance(piece, Piece)] == [True] * 2 + [False] * 5
    assert isinstance(end, Ended) and (end.finish_reason, end.completion_tokens) == ("stop", 7)


async def test_what_the_caller_left_open_is_left_to_the_engine(router: RouterClient, engine: str) -> None:
    await events(router, asked())
    body = said(engine)["requests"][-1]["body"]
    assert not {"temperature", "top_p", "continue_final_message", "service_tier"} & set(body)
    await events(router, asked(continue_last=True))
    assert said(engine)["requests"][-1]["body"]["continue_final_message"] is True
    await events(router, replace(asked(), last=True))
    assert said(engine)["requests"][-1]["body"]["service_tier"] == "flex"


async def test_a_personal_key_is_named_and_the_app_s_own_is_not(router: RouterClient, engine: str) -> None:
    await events(router, replace(asked(), key="a" * 64))
    assert said(engine)["requests"][-1]["headers"]["x-duoserve-for-key"] == "a" * 64
    await events(router, asked())
    assert "x-duoserve-for-key" not in said(engine)["requests"][-1]["headers"]


@pytest.mark.parametrize(
    ("knobs", "kind", "sentence", "retry_after"),
    [
        ({"status": 401}, "key", "does not accept", 0),
        ({"status": 404}, "model", "no model named “coder”", 0),
        ({"status": 413}, "size", "too large", 0),
        ({"status": 429, "retry_after": "7"}, "busy", "busy right now", 7),
        ({"status": 429, "retry_after": "soon"}, "busy", "busy right now", 0),
        ({"status": 503, "retry_after": "2"}, "down", "not available", 2),
        ({"status": 400, "error_message": "No such thing."}, "request", "No such thing.", 0),
        ({"status": 500}, "service", "failed to answer", 0),
        ({"error_at": 3}, "lost", "connection was lost", 0),
        ({"drop_at": 3}, "lost", "connection was lost", 0),
    ],
)
async def test_every_failure_is_a_sentence(
    router: RouterClient, knobs: dict[str, Any], kind: str, sentence: str, retry_after: float
) -> None:
    with pytest.raises(RouterFailure) as failure:
        await events(router, asked(**knobs))
    assert (failure.value.kind, failure.value.retry_after) == (kind, retry_after)
    assert sentence in str(failure.value)


async def test_nobody_there_is_a_sentence_too() -> None:
    nobody = RouterClient(settings("http://127.0.0.1:9"))
    for attempt in (events(nobody, asked()), nobody.ready()):
        with pytest.raises(RouterFailure, match=r"at http://127\.0\.0\.1:9 is not responding") as failure:
            await attempt
        assert failure.value.kind == "unreachable"
    await nobody.close()


@pytest.mark.parametrize("knobs", [{"ttft_ms": 60_000}, {"completion_tokens": 40, "itl_ms": 5_000}])
async def test_a_cancelled_answer_frees_the_engine(
    router: RouterClient, engine: str, knobs: dict[str, Any]
) -> None:
    task = asyncio.create_task(events(router, asked(**knobs)))
    await until(lambda: said(engine)["running"] == 1, "the engine works on it")
    task.cancel()
    await until(lambda: said(engine)["running"] == 0, "the engine is free")
    assert said(engine)["requests"][-1]["state"] == "aborted"
