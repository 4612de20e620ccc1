import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.layers.cancel import Cancel


async def stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def leaves() -> Message:
    return {"type": "http.disconnect"}


async def unused(_: Any) -> None:
    raise AssertionError


async def run(
    receive: Receive, seconds: float = 5, stubborn: int = 0, stopping: asyncio.Event | None = None
) -> int:
    """How often the inner app was cancelled; it swallows `stubborn` cancellations."""
    cancelled = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cancelled
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled > stubborn:
                    raise

    try:
        await Cancel(app, seconds, stopping or asyncio.Event())(
            {"duoserve": Exchange("/v1/completions")}, receive, unused
        )
    finally:
        assert cancelled > 0, "the inner app goes on"
    return cancelled


async def test_ends_when_the_client_leaves() -> None:
    with pytest.raises(ClientDisconnect):
        await run(leaves)


async def test_ends_at_the_deadline() -> None:
    with pytest.raises(ApiError) as caught:
        await run(stays, seconds=0.01)
    assert caught.value.status == 504


async def test_ends_when_the_grace_time_of_a_shutdown_is_over() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    with pytest.raises(ApiError) as caught:
        await run(stays, stopping=stopping)
    assert caught.value.code == "shutting_down"


async def test_an_app_that_swallows_cancellations_ends_all_the_same() -> None:
    with pytest.raises(ClientDisconnect):
        await run(leaves, stubborn=2)


async def test_the_answer_of_the_inner_app_is_waited_for() -> None:
    done = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        done.append(True)

    await Cancel(app, 5, asyncio.Event())({"duoserve": Exchange("/v1/completions")}, stays, unused)
    assert done
