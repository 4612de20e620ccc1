"""One alias on two engines: load spreads, and an engine that dies takes nothing but its own requests."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.service import ASK, SLOTS, Service, chat
from tests.support.waiting import until, wait_for

Make = Callable[..., Service]
LONG = "word " * 900  # more than a prompt may have


class Pair:
    """A service whose coder has two engines."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.first = service.engines["coder"]
        self.second = service.engine("coder")
        self.engines = (self.first, self.second)
        service.environment["CODER_URL"] = f"{self.first.url}, {self.second.url}"

    def start(self) -> "Pair":
        self.second.start()
        self.service.start()
        self.wait_slots(2 * SLOTS)
        return self

    def stop(self) -> None:
        self.second.stop()

    def running(self) -> list[int]:
        return [engine.state()["running"] if engine.answers() else 0 for engine in self.engines]

    def reason(self) -> str:
        status = ASK.get(f"{self.service.url}/ready").json()["models"]["coder"]
        assert status["state"] == "ready"
        return str(status["reason"])

    def wait_slots(self, count: int) -> None:
        def there() -> bool:
            text = ASK.get(f"{self.service.url}/metrics", headers=self.service.headers).text
            return f'duoserve_slots{{alias="coder"}} {count:.1f}' in text

        wait_for(there, f"coder has {count} slots")


def _texts(answers: list[httpx.Response]) -> list[str]:
    """The text of each streamed answer that came whole."""
    whole = []
    for answer in answers:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        if answer.status_code == 200 and events and not any("error" in event for event in events):
            whole.append("".join(e["choices"][0]["delta"].get("content") or "" for e in events))
    return whole


@pytest.fixture
def pair(own_service: Make) -> Any:
    pair = Pair(own_service())
    try:
        yield pair.start()
    finally:
        pair.stop()


async def test_two_engines_serve_one_alias(pair: Pair) -> None:
    """One start for the whole story, because the router takes seconds to start."""
    await load_spreads_over_the_slots_of_both(pair)
    sequential_requests_keep_their_prefix_cache(pair)
    await a_client_that_leaves_frees_either_engine(pair)
    await a_killed_engine_loses_nothing_but_its_requests(pair)
    everything_works_on_the_engine_that_is_left(pair)
    await it_comes_back(pair)
    with_none_left_it_is_said_at_once(pair)


async def load_spreads_over_the_slots_of_both(pair: Pair) -> None:
    for engine in pair.engines:
        engine.set(itl_ms=20, completion_tokens=40)
    async with pair.service.client() as client:
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=True)))
            for _ in range(2 * SLOTS + 3)
        ]
        await until(lambda: pair.running() == [SLOTS, SLOTS], "both engines work")
        assert pair.service.gauge("duoserve_waiting") == 3
        assert pair.service.gauge("duoserve_engine_in_flight") == 2 * SLOTS
        answers = await asyncio.gather(*asking)
    assert len(_texts(answers)) == 2 * SLOTS + 3
    engines = [pair.service.record(answer)["engine"] for answer in answers]
    assert min(engines.count(1), engines.count(2)) >= SLOTS


def sequential_requests_keep_their_prefix_cache(pair: Pair) -> None:
    for engine in pair.engines:
        engine.reset()
    chosen = {
        pair.service.record(pair.service.post("/v1/chat/completions", chat()))["engine"] for _ in range(4)
    }
    assert len(chosen) == 1


async def a_client_that_leaves_frees_either_engine(pair: Pair) -> None:
    for engine in pair.engines:
        engine.set(ttft_ms=60_000)
    async with pair.service.client() as client:
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=stream)))
            for stream in (True, False, True, False)
        ]
        await until(lambda: pair.running() == [2, 2], "both engines work")
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    wait_for(lambda: pair.running() == [0, 0], "both engines are free")
    assert pair.service.gauge("duoserve_engine_in_flight") == 0


async def a_killed_engine_loses_nothing_but_its_requests(pair: Pair) -> None:
    for engine in pair.engines:
        engine.reset()
        engine.set(itl_ms=20, completion_tokens=40)
    count = 2 * SLOTS + 10
    async with pair.service.client() as client:
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=True)))
            for _ in range(count)
        ]
        await until(lambda: pair.running() == [SLOTS, SLOTS], "both engines work")
        pair.first.stop(signal.SIGKILL)
        answers = await asyncio.gather(*asking)
    lost = [answer for answer in answers if answer not in _whole(answers)]
    assert len(lost) == SLOTS, [(answer.status_code, answer.text[-200:]) for answer in lost]
    assert {pair.service.record(answer)["engine"] for answer in lost} == {1}
    assert pair.reason() == "serving with 1 of 2 engines"
    pair.wait_slots(SLOTS)
    assert pair.service.gauge("duoserve_in_flight") == pair.service.gauge("duoserve_waiting") == 0


def _whole(answers: list[httpx.Response]) -> list[httpx.Response]:
    return [answer for answer in answers if _texts([answer])]


def everything_works_on_the_engine_that_is_left(pair: Pair) -> None:
    pair.second.reset()
    service = pair.service
    kept = service.post(
        "/v1/chat/completions",
        {
            "model": "coder",
            "messages": [
                {"role": "user", "content": LONG},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "and now?"},
            ],
        },
    )
    assert kept.status_code == 200 and int(kept.headers["x-duoserve-truncated-messages"]) >= 1
    anthropic: dict[str, Any] = {"model": "coder", "messages": [{"role": "user", "content": "hi"}]}
    counted = service.post("/v1/messages/count_tokens", anthropic)
    assert counted.json()["input_tokens"] > 0
    for path, body in (
        ("/v1/messages", anthropic | {"max_tokens": 5}),
        ("/v1/responses", {"model": "coder", "input": "hi"}),
        ("/v1/completions", {"model": "coder", "prompt": "def f(", "suffix": "return 1", "max_tokens": 5}),
        ("/v1/completions", {"model": "coder", "prompt": "1, 2,", "stream": True, "max_tokens": 5}),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 200, answer.text
        assert service.record(answer)["engine"] == 2


async def it_comes_back(pair: Pair) -> None:
    pair.first.start()
    pair.wait_slots(2 * SLOTS)
    assert pair.reason() == "serving"
    await load_spreads_over_the_slots_of_both(pair)


def with_none_left_it_is_said_at_once(pair: Pair) -> None:
    for engine in pair.engines:
        engine.stop(signal.SIGKILL)
    answer = pair.service.post("/v1/chat/completions", chat())
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    wait_for(lambda: pair.service.ready()["coder"] == "down", "the model is seen to be down")
    assert pair.service.post("/v1/chat/completions", chat(model="general")).status_code == 200
