"""A wall clock that is set while the router runs: nothing that takes time is measured by it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.readiness import POLL_SECONDS
from tests.support.service import Service, chat
from tests.support.waiting import until, wait_for

Make = Callable[..., Service]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
DAY = 86_400
PER_MINUTE = 20


class Clock:
    """The wall clock of a service that is not started yet, as an offset from the machine's."""

    def __init__(self, service: Service) -> None:
        if not FAKETIME:
            pytest.skip("libfaketime is not installed (Debian: apt install libfaketime)")
        self._file = service.folder / "clock"
        self.set(0)
        service.environment |= {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+}\n")
        new.rename(self._file)


@pytest.fixture
def service(own_service: Make) -> Iterator[Service]:
    service = own_service(requests_per_minute=PER_MINUTE)
    yield service
    service.stop()
    if service.router:
        # libfaketime removes its shared memory at an orderly end only.
        for left in Path("/dev/shm").glob(f"*faketime_*_{service.router.child.pid}"):
            left.unlink()


async def test_what_is_being_answered_is_and_is_logged(service: Service) -> None:
    clock = Clock(service)
    service.start()
    engine = service.engines["coder"]
    engine.set(itl_ms=20, completion_tokens=50)
    for offset in (DAY, 0, -DAY, 0):
        async with service.client() as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=True)))
            await until(lambda: any(each["chunks"] > 5 for each in engine.requests()), "it is answered")
            clock.set(offset)
            answer = await asking
        assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text
        record = service.record(answer)
        assert 0 < record["ttft_ms"] < record["total_ms"] < 1000 * DAY / 2
        assert set(service.ready().values()) == {"ready"}
        engine.reset()
        engine.set(itl_ms=20, completion_tokens=50)


def test_a_model_that_loads_is_loading(service: Service) -> None:
    clock = Clock(service)
    service.engines["coder"].start()
    service.start_router()
    wait_for(lambda: service.ready() == {"coder": "ready", "general": "loading"}, "one model is ready")
    clock.set(DAY)
    time.sleep(4 * POLL_SECONDS)
    answer = service.post("/v1/chat/completions", chat(model="general"))
    assert answer.json()["error"]["code"] == "model_loading"


def test_a_minute_of_use_does_not_become_a_day(service: Service) -> None:
    clock = Clock(service)
    clock.set(DAY)
    service.start()

    def ask() -> int:
        return service.post("/v1/chat/completions", chat(max_tokens=1)).status_code

    assert [ask() for _ in range(PER_MINUTE + 1)] == [200] * PER_MINUTE + [429]
    clock.set(0)
    assert ask() == 200
