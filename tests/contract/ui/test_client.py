"""The client against a mock engine, which fails in every way that a router can."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from mock_engine import MockEngine
from tests.support.waiting import until
from ui.client import Ended, Event, Failure, Piece, Request, Router, Started
from ui.settings import Settings


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with MockEngine() as running:
        yield running.url


@pytest.fixture
async def router(engine: str) -> AsyncIterator[Router]:
    client = Router(settings(engine))
    yield client
    await client.close()


def settings(router: str) -> Settings:
    return Settings.model_construct(router_url=router, litellm_master_key=SecretStr("k" * 32))


def asked(continue_last: bool = False, **knobs: Any) -> Request:
    question = f"mock:{json.dumps(knobs)}" if knobs else "Hello"
    return Request("coder", [{"role": "user", "content": question}], None, None, 50, "me", continue_last)


async def events(router: Router, request: Request) -> list[Event]:
    return [event async for event in router.stream(request)]


def said(engine: str) -> Any:
    with urllib.request.urlopen(f"{engine}/mock") as answer:
        return json.load(answer)


async def test_an_answer_comes_in_pieces_with_reasoning_and_counts(router: Router) -> None:
    start, *pieces, end = await events(router, asked(completion_tokens=5, reasoning_tokens=2))
    assert start == Started(0, 0)
    assert [bool(piece.reasoning) for piece in pieces if isinstance(piece, Piece)] == [True] * 2 + [False] * 5
    assert isinstance(end, Ended) and (end.finish_reason, end.completion_tokens) == ("stop", 7)


async def test_what_the_caller_left_open_is_left_to_the_engine(router: Router, engine: str) -> None:
    await events(router, asked())
    body = said(engine)["requests"][-1]["body"]
    assert not {"temperature", "top_p", "continue_final_message"} & set(body)
    await events(router, asked(continue_last=True))
    assert said(engine)["requests"][-1]["body"]["continue_final_message"] is True


@pytest.mark.parametrize(
    ("knobs", "kind", "sentence", "retry_after"),
    [
        ({"status": 401}, "key", "does not accept", 0),
        ({"status": 404}, "model", "no model named “coder”", 0),
        ({"status": 413}, "size", "too large", 0),
        ({"status": 429, "retry_after": "7"}, "busy", "queue is full", 7),
        ({"status": 429, "retry_after": "soon"}, "busy", "queue is full", 0),
        ({"status": 503, "retry_after": "2"}, "down", "not available", 2),
        ({"status": 400, "error_message": "No such thing."}, "request", "No such thing.", 0),
        ({"status": 500}, "service", "failed to answer", 0),
        ({"error_at": 3}, "lost", "middle of this answer", 0),
        ({"drop_at": 3}, "lost", "middle of this answer", 0),
    ],
)
async def test_every_failure_is_a_sentence(
    router: Router, knobs: dict[str, Any], kind: str, sentence: str, retry_after: float
) -> None:
    with pytest.raises(Failure) as failure:
        await events(router, asked(**knobs))
    assert (failure.value.kind, failure.value.retry_after) == (kind, retry_after)
    assert sentence in str(failure.value)


async def test_nobody_there_is_a_sentence_too() -> None:
    nobody = Router(settings("http://127.0.0.1:9"))
    for attempt in (events(nobody, asked()), nobody.ready()):
        with pytest.raises(Failure, match=r"does not answer at http://127\.0\.0\.1:9") as failure:
            await attempt
        assert failure.value.kind == "unreachable"
    await nobody.close()


@pytest.mark.parametrize("knobs", [{"ttft_ms": 60_000}, {"completion_tokens": 40, "itl_ms": 5_000}])
async def test_a_cancelled_answer_frees_the_engine(
    router: Router, engine: str, knobs: dict[str, Any]
) -> None:
    task = asyncio.create_task(events(router, asked(**knobs)))
    await until(lambda: said(engine)["running"] == 1, "the engine works on it")
    task.cancel()
    await until(lambda: said(engine)["running"] == 0, "the engine is free")
    assert said(engine)["requests"][-1]["state"] == "aborted"
