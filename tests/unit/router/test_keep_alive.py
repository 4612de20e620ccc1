"""Comments in streams whose answer does not begin for long."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from router.errors import engine_failed
from router.exchange import Exchange
from router.layers.answer_errors import AnswerErrors
from router.layers.keep_alive import PING, KeepAlive
from router.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.support.waiting import PATIENCE

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
CONTENT: Message = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
Answer = Callable[[Exchange, Send, asyncio.Event], Awaitable[None]]


def sent(answer: Answer, path: str = CHAT, *, stream: bool = True, waiting: bool = False) -> list[Message]:
    """What a client gets of `answer`, which is told by an event of each comment that was sent."""
    messages: list[Message] = []

    async def main() -> None:
        exchange = Exchange(path, stream=stream, queue_wait=None if waiting else 0.0)
        pinged = asyncio.Event()

        async def send(message: Message) -> None:
            messages.append(message)
            if message.get("body") == PING:
                pinged.set()

        async def receive() -> Message:
            return {"type": "http.request"}

        async def app(_: Scope, __: Receive, inner: Send) -> None:
            await answer(exchange, inner, pinged)

        layers = AnswerErrors(KeepAlive(app, 0.01))
        await asyncio.wait_for(layers({"duoserve": exchange}, receive, send), PATIENCE)

    asyncio.run(main())
    return messages


async def late(_: Exchange, send: Send, pinged: asyncio.Event) -> None:
    for _comment in range(2):
        await pinged.wait()
        pinged.clear()
    await send(START)
    await asyncio.sleep(0.05)
    await send(CONTENT)


def test_comments_come_until_the_answer_begins() -> None:
    head, *bodies, content = sent(late)
    assert head["type"] == "http.response.start" and head["status"] == 200
    assert [body["body"] for body in bodies] == [PING, PING]
    assert content == CONTENT


async def quick(_: Exchange, send: Send, __: asyncio.Event) -> None:
    await send(START)
    await send(CONTENT)


async def whole(exchange: Exchange, send: Send, pinged: asyncio.Event) -> None:
    await asyncio.sleep(0.05)
    await quick(exchange, send, pinged)


@pytest.mark.parametrize(("answer", "stream"), [(quick, True), (whole, False)])
def test_other_answers_pass_as_they_are(answer: Answer, stream: bool) -> None:
    start, content = sent(answer, stream=stream)
    assert start["type"] == START["type"] and content == CONTENT


async def fails_late(_: Exchange, __: Send, pinged: asyncio.Event) -> None:
    await pinged.wait()
    raise engine_failed("coder")


async def fails(*_: object) -> None:
    raise engine_failed("coder")


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        (CHAT, b'data: {"error": {'),
        (COMPLETIONS, b'data: {"error": {'),
        (MESSAGES, b"event: error\ndata: "),
        (RESPONSES, b"event: error\ndata: "),
    ],
)
def test_a_failure_is_a_status_before_the_first_comment_and_an_event_after_it(
    path: str, begins: bytes
) -> None:
    head, body, *_ = sent(fails, path)
    assert head["status"] == 503 and "failed to answer" in str(json.loads(body["body"]))
    head, *_, last = sent(fails_late, path)
    assert head["status"] == 200
    assert last["body"].startswith(begins) and b"failed to answer" in last["body"]


async def waits(exchange: Exchange, _: Send, pinged: asyncio.Event) -> None:
    await asyncio.sleep(0.05)
    assert not pinged.is_set()
    exchange.queue_wait = 0.05
    await pinged.wait()
    exchange.queue_wait = None  # of another model's slot
    pinged.clear()
    await pinged.wait()


def test_a_request_that_waits_for_its_first_slot_gets_none() -> None:
    assert [message.get("body") for message in sent(waits, waiting=True)] == [None, PING, PING]
