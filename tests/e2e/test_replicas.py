"""Two real engines behind one alias: load spreads, one dies, and only what it was doing is lost."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import request_log
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow
SLOTS = 8  # of the cpu profile
TOKENS = 120


def _records(stack: Stack) -> dict[str, Any]:
    return {record["request_id"]: record for record in request_log.records(stack.home)}


def _whole(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 200
        and '"error"' not in answer.text
        and answer.text.endswith("data: [DONE]\n\n")
    )


def _in_flight(stack: Stack) -> dict[str, float]:
    text = httpx.get(f"{stack.url}/metrics", headers=stack.headers).text
    lines = [line for line in text.splitlines() if line.startswith('duoserve_engine_in_flight{alias="coder"')]
    return {line.split('engine="')[1][0]: float(line.split()[-1]) for line in lines}


async def _ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
    body = {
        "model": "coder",
        "prompt": f"Some facts about the number {number}:",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    return await client.post("/v1/completions", json=body)


def _client(stack: Stack) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=stack.url, headers=stack.headers, timeout=300, limits=limits)


async def test_load_spreads_and_a_dead_engine_takes_only_its_own_requests(tmp_path: Path) -> None:
    first, second = (f"http://127.0.0.1:{port}" for port in (free_port(), free_port()))
    stack = Stack(tmp_path / "home", CODER_URL=f"{first},{second}")
    try:
        up = stack.run("up", "--detach")
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}\n{stack.logs()}"
        services = stack.status()["services"]
        assert {"coder", "coder-2", "general"} <= set(services)
        _wait_until_both_serve(stack)
        await load_spreads(stack)
        await one_dies_under_load(stack)
        _wait_until_both_serve(stack)
        await load_spreads(stack)
    finally:
        stack.run("down")
    assert stack.processes() == []


def _wait_until_both_serve(stack: Stack) -> None:
    wait_for(
        lambda: httpx.get(f"{stack.url}/ready").json()["models"]["coder"]["reason"] == "serving",
        "the engine is back",
        600,
    )


async def load_spreads(stack: Stack) -> None:
    async with _client(stack) as client:
        answers = await asyncio.gather(*(_ask(client, number) for number in range(2 * SLOTS)))
    assert all(_whole(answer) for answer in answers)
    records = _records(stack)
    engines = [records[answer.headers["x-request-id"]]["engine"] for answer in answers]
    assert engines.count(1) == engines.count(2) == SLOTS


async def one_dies_under_load(stack: Stack) -> None:
    worker = max(stack.processes("coder-2"), key=lambda process: process.memory_info().rss)
    async with _client(stack) as client:
        asking = [asyncio.create_task(_ask(client, number)) for number in range(3 * SLOTS)]
        async with asyncio.timeout(60):
            while _in_flight(stack) != {"1": SLOTS, "2": SLOTS}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        worker.kill()
        answers = await asyncio.gather(*asking)
    lost = [answer for answer in answers if not _whole(answer)]
    records = _records(stack)
    assert {records[answer.headers["x-request-id"]]["engine"] for answer in lost} == {2}
    assert len(lost) == SLOTS, [answer.text[-200:] for answer in lost]
