"""A client that has gone is no failure of the router."""

import asyncio
import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.layers.answer_errors import AnswerErrors


async def refuses(_: Scope, __: Receive, ___: Send) -> None:
    raise ApiError(400, "no", reason="bad_request")


async def breaks_off(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ApiError(503, "no", reason="engine_failed")


async def answers(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def receive() -> Message:
    return {"type": "http.request"}


@pytest.mark.parametrize("closes_at", [1, 2])
@pytest.mark.parametrize("app", [refuses, breaks_off, answers])
@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), ConnectionResetError()])
def test_a_closed_transport_is_quiet(
    app: object, error: Exception, closes_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange("/v1/chat/completions", stream=True)
    sent = 0

    async def send(_: Message) -> None:
        nonlocal sent
        sent += 1
        if sent >= closes_at:
            raise error

    with caplog.at_level(logging.INFO):
        asyncio.run(AnswerErrors(app)({"duoserve": exchange}, receive, send))  # type: ignore[arg-type]
    assert exchange.aborted
    assert caplog.records == []
