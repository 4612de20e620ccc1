"""A long prompt waits for autocompletions, but not for ever, and nothing of an answer comes twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from router.exchange import Exchange, Priority
from router.layers import give_way
from router.layers.give_way import GiveWay
from router.models import Model, Replica
from router.paths import CHAT, RESPONSES

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
CREATED = b'event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {"event: x": 1}\n\n'
ITEM = b"event: response.output_item.added\ndata: {}\n\n"
Engine = Callable[[Exchange, Send], Awaitable[None]]


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def layer(engine: Engine, *, caches_prefixes: bool = True) -> GiveWay:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await engine(Exchange.of(scope), send)

    return GiveWay(app, {"coder": Model("coder", (), "m", 4, 1000, caches_prefixes=caches_prefixes)})


def exchange(priority: Priority, path: str = CHAT) -> Exchange:
    replica = Replica("coder", 1, "http://engine")
    return Exchange(path, alias="coder", priority=priority, stream=True, size=10_000, replica=replica)


async def asked(app: GiveWay, one: Exchange) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "duoserve": one}, receive, send)
    return sent


def beside(engine: Engine, agent: Exchange, **more: Any) -> list[Message]:
    """What the agent's client gets when an autocompletion comes once its request has reached the engine."""

    async def both() -> list[Message]:
        app = layer(engine, **more)
        answer = asyncio.create_task(asked(app, agent))
        await asyncio.sleep(0)
        await asked(app, exchange(Priority.KEYSTROKE))
        return await answer

    return asyncio.run(both())


@pytest.mark.parametrize("early", [b"", CREATED])
@pytest.mark.parametrize("cut", [1, 30, 1000])
def test_events_before_the_prompt_is_read_come_once(early: bytes, cut: int) -> None:
    runs = []

    async def engine(one: Exchange, send: Send) -> None:
        if one.priority is Priority.KEYSTROKE:
            await asyncio.sleep(0.01)
            return
        runs.append(one)
        await send(HEAD)
        for start in range(0, len(early), cut):
            await send(part(early[start : start + cut]))
        if len(runs) == 1:
            await asyncio.Event().wait()
        await send(part(ITEM))
        await send(part(b"", more=False))

    sent = beside(engine, agent := exchange(Priority.AGENT, RESPONSES))
    assert len(runs) == 2 and sent[0] == HEAD
    assert b"".join(message.get("body", b"") for message in sent) == early + ITEM
    assert "x-duoserve-gave-way-ms" in agent.headers


def test_an_answer_that_has_begun_goes_on() -> None:
    async def engine(one: Exchange, send: Send) -> None:
        if one.priority is Priority.AGENT:
            await send(HEAD)
            await send(part(b"data: 1\n\n"))
            await asyncio.sleep(0.01)
            await send(part(b"data: 2\n\n", more=False))

    assert beside(engine, exchange(Priority.AGENT)) == [
        HEAD,
        part(b"data: 1\n\n"),
        part(b"data: 2\n\n", more=False),
    ]


def test_a_prompt_that_would_have_to_be_read_anew_goes_on() -> None:
    runs = []

    async def engine(one: Exchange, send: Send) -> None:
        runs.append(one.priority)
        await asyncio.sleep(0.01)
        await send(HEAD)

    assert beside(engine, exchange(Priority.AGENT), caches_prefixes=False) == [HEAD]
    assert runs == [Priority.AGENT, Priority.KEYSTROKE]


def test_a_prompt_is_read_in_the_end_however_many_autocompletions_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(give_way, "_LEAST_WAIT", 0.01)
    typing = asyncio.Event()
    runs = []

    async def engine(one: Exchange, send: Send) -> None:
        if one.priority is Priority.KEYSTROKE:
            await typing.wait()
            return
        runs.append(one)
        await asyncio.sleep(0)
        await send(HEAD)
        await send(part(b"data: 1\n\n", more=False))

    async def both() -> list[Message]:
        app = layer(engine)
        typed = asyncio.create_task(asked(app, exchange(Priority.KEYSTROKE)))
        await asyncio.sleep(0)
        answer = await asked(app, exchange(Priority.AGENT))
        assert not typed.done()
        typing.set()
        await typed
        return answer

    assert asyncio.run(both())[0] == HEAD and len(runs) == 1


def test_who_was_out_of_patience_gives_way_again_once_it_has_been_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(give_way, "_LEAST_WAIT", 0.0)
    monkeypatch.setattr(give_way, "_WAIT_PER_READ", 1e6)
    typing, begun = asyncio.Event(), asyncio.Event()
    runs = []

    async def engine(one: Exchange, send: Send) -> None:
        if one.priority is Priority.KEYSTROKE:
            await typing.wait()
            return
        runs.append(one)
        begun.set()
        if len(runs) == 1:
            await asyncio.Event().wait()
        await send(HEAD)
        await send(part(b"data: 1\n\n", more=False))

    async def both() -> list[Message]:
        app = layer(engine)
        typed = asyncio.create_task(asked(app, exchange(Priority.KEYSTROKE)))
        await asyncio.sleep(0)
        answer = asyncio.create_task(asked(app, exchange(Priority.AGENT)))
        await begun.wait()
        more = asyncio.create_task(asked(app, exchange(Priority.KEYSTROKE)))
        await asyncio.sleep(0.01)
        typing.set()
        await asyncio.gather(typed, more)
        return await answer

    assert asyncio.run(both())[0] == HEAD and len(runs) == 2


def test_a_timeout_inside_is_not_taken_for_giving_way() -> None:
    async def engine(_: Exchange, __: Send) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(asked(layer(engine), exchange(Priority.AGENT)))
