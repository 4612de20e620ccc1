import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.router.conftest import SLOTS, Service, chat, wait_for

QUEUE_MAX = 100


def nothing_left(service: Service) -> bool:
    busy = sum(service.gauge(name) for name in ("duoserve_in_flight", "duoserve_waiting"))
    return busy == 0 and all(engine.state()["running"] == 0 for engine in service.engines.values())


@pytest.fixture(autouse=True)
def places_are_given_back(service: Service) -> Iterator[None]:
    yield
    wait_for(lambda: nothing_left(service), 2, "every slot and place is given back")


async def test_a_burst_is_served_as_far_as_slots_and_room_go(service: Service) -> None:
    before = len(service.records())
    service.engines["coder"].set(ttft_ms=150, completion_tokens=1)
    async with service.client() as client:
        asking = (client.post("/v1/chat/completions", json=chat()) for _ in range(150))
        answers = await asyncio.gather(*asking)
    refused = [answer.headers for answer in answers if answer.status_code == 429]
    served = [answer.headers for answer in answers if answer.status_code == 200]
    assert len(served) == SLOTS + QUEUE_MAX
    assert len(refused) == 150 - SLOTS - QUEUE_MAX
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    refusals = [record["total_ms"] for record in service.records()[before:] if record["status"] == 429]
    assert len(refusals) == len(refused)
    assert max(refusals) < 100
    positions = sorted(int(headers["x-duoserve-queue-position"]) for headers in served)
    assert positions == [0] * SLOTS + list(range(1, QUEUE_MAX + 1))
    assert max(float(headers["x-duoserve-queue-wait-ms"]) for headers in served) > 500


async def order_served(service: Service, bodies: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The users of requests that came one after the other, in the order in which the engine got them."""
    engine = service.engines["coder"]
    async with service.client() as client:
        tasks = []
        for number, (path, body) in enumerate(bodies, 1):
            tasks.append(asyncio.create_task(client.post(path, json=body)))
            while service.gauge("duoserve_in_flight") + service.gauge("duoserve_waiting") < number:
                await asyncio.sleep(0.001)
        engine.set(ttft_ms=5)
        await asyncio.gather(*tasks)
    return [request["body"]["user"] for request in engine.requests()]


async def test_small_clients_finish_before_the_backlog_of_a_big_one(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=1500, completion_tokens=1)
    users = ["big"] * 30 + ["b"] * 4 + ["c"] * 4
    order = await order_served(service, [("/v1/chat/completions", chat(user=user)) for user in users])
    assert max(i for i, user in enumerate(order) if user != "big") < SLOTS + 3 * 4 + 1
    assert order[-1] == "big"


async def test_autocompletion_goes_before_chat(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=1500, completion_tokens=1)
    fim = {"model": "coder", "prompt": "a", "suffix": "b", "user": "fim", "max_tokens": 1}
    raw = {"model": "coder", "prompt": "<|fim_prefix|>a<|fim_suffix|>", "user": "fim", "max_tokens": 1}
    chats = [("/v1/chat/completions", chat(user=f"chat{i}")) for i in range(SLOTS + 3)]
    order = await order_served(service, [*chats, ("/v1/completions", fim), ("/v1/completions", raw)])
    assert order[SLOTS : SLOTS + 2] == ["fim", "fim"]


async def test_requests_of_one_client_keep_their_order(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=300, completion_tokens=1, slots=1)
    bodies = [("/v1/chat/completions", chat(f"number {i}", user="a")) for i in range(14)]
    await order_served(service, bodies)
    sent = [request["body"]["messages"][0]["content"] for request in service.engines["coder"].requests()]
    assert sent[SLOTS:] == [f"number {i}" for i in range(SLOTS, 14)]


async def test_the_other_model_does_not_wait(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=300, completion_tokens=1)
    async with service.client() as client:
        busy = [asyncio.create_task(client.post("/v1/chat/completions", json=chat())) for _ in range(20)]
        await asyncio.sleep(0.1)
        answer = await client.post("/v1/chat/completions", json=chat(model="general"))
        assert answer.headers["x-duoserve-queue-position"] == "0"
        await asyncio.gather(*busy)


async def test_no_place_is_lost_when_clients_leave_in_any_phase(service: Service) -> None:
    for engine in service.engines.values():
        engine.set(ttft_ms=60, itl_ms=5, completion_tokens=20)
    chance = random.Random(7)  # noqa: S311
    async with service.client() as client:

        async def leave_early(number: int) -> None:
            stream = number % 2 == 0
            body = chat(model=chance.choice(["coder", "general"]), stream=stream, user=f"u{number % 7}")
            try:
                async with asyncio.timeout(chance.uniform(0.0, 0.5)):
                    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                        async for _ in answer.aiter_bytes():
                            pass
            except TimeoutError:
                pass

        for _ in range(6):
            await asyncio.gather(*(leave_early(number) for number in range(50)))
        wait_for(lambda: nothing_left(service), 2, "every slot and place is given back")
        served = await client.post("/v1/chat/completions", json=chat())
    assert served.status_code == 200
    assert served.headers["x-duoserve-queue-position"] == "0"
    assert served.headers["x-duoserve-in-flight"] == "1"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_the_engine_is_free_at_once_when_the_client_leaves(service: Service, stream: bool, path: str) -> None:
    engine = service.engines["coder"]
    engine.set(ttft_ms=5000)
    async with service.client() as client:
        asking = asyncio.create_task(client.post(path, json=chat(stream=stream, max_tokens=50)))
        while engine.state()["running"] == 0:
            await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert wait_for(lambda: engine.state()["running"] == 0, 2, "the engine is free") < 0.2
    assert engine.requests()[-1]["state"] == "aborted"


async def test_the_engine_is_free_at_once_when_the_client_leaves_mid_stream(service: Service) -> None:
    engine = service.engines["coder"]
    engine.set(itl_ms=20, completion_tokens=500)
    async with service.client() as client:
        async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            async for _ in answer.aiter_bytes():
                break
        assert wait_for(lambda: engine.state()["running"] == 0, 2, "the engine is free") < 0.2
