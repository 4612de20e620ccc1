import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mock_engine import MockEngine
from tests.support.service import ASK, KEY, SLOTS, Service, chat
from tests.support.waiting import PATIENCE, until, wait_for

Make = Callable[..., Service]


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def test_an_engine_killed_under_load(own_service: Make) -> None:
    service = own_service().start()
    await kill_under_load(service, "coder")
    await kill_under_load(service, "general")


def streaming(engine: MockEngine) -> int:
    return sum(request["state"] == "running" and request["chunks"] > 5 for request in engine.requests())


async def kill_under_load(service: Service, hit: str) -> None:
    other = "general" if hit == "coder" else "coder"
    round_trip = service.round_trip()
    for engine in service.engines.values():
        engine.set(itl_ms=20, completion_tokens=60)
    async with service.client() as client:

        async def ask(alias: str, path: str = "/v1/chat/completions") -> tuple[int, str]:
            answer = await client.post(path, json=chat(model=alias, stream=True, max_tokens=60))
            return answer.status_code, answer.text

        unhit = [asyncio.create_task(ask(other)) for _ in range(SLOTS + 2)]
        anthropic = asyncio.create_task(ask(hit, "/v1/messages"))
        asking = [asyncio.create_task(ask(hit)) for _ in range(SLOTS + 8)]
        await until(lambda: streaming(service.engines[hit]) == SLOTS, "every slot sends tokens")
        service.engines[hit].stop(signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: service.ready()[hit] == "down", "the engine is seen to be down")
        assert time.monotonic() - killed < max(1, 100 * round_trip)
        refused = await client.post("/v1/chat/completions", json=chat(model=hit))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        answers = await asyncio.gather(*asking, anthropic)
        spared = await asyncio.gather(*unhit)
    broken = [text for status, text in answers if status == 200]
    assert len(broken) == SLOTS
    for text in broken:
        assert events(text)[-1].get("error"), text[-300:]
        assert text.endswith("data: [DONE]\n\n") or text.splitlines()[-3] == "event: error"
    assert all(status == 503 for status, text in answers if text not in broken)
    assert all(status == 200 and text.count('"content"') >= 60 for status, text in spared)
    assert service.gauge("duoserve_in_flight") == service.gauge("duoserve_waiting") == 0
    assert f"the response of {hit} broke off: ClientPayloadError" in service.log()

    service.engines[hit].start()
    wait_for(lambda: service.ready()[hit] == "ready", "the engine is seen to be back")
    assert service.post("/v1/chat/completions", chat(model=hit)).status_code == 200


async def test_a_loading_model_is_refused_at_once_and_the_other_serves(own_service: Make) -> None:
    service = own_service()
    service.engines["general"].start()
    service.start_router()
    wait_for(lambda: service.ready() == {"coder": "loading", "general": "ready"}, "one model is ready")
    assert ASK.get(f"{service.url}/ready").status_code == 200
    answer = service.post("/v1/chat/completions", chat())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_loading"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.elapsed.total_seconds() < 20 * service.round_trip("general")
    assert service.post("/v1/chat/completions", chat(model="general")).status_code == 200
    service.engines["coder"].start(load_seconds=1)
    wait_for(lambda: service.ready()["coder"] == "ready", "the other model is ready")
    for engine in service.engines.values():
        engine.stop()
    wait_for(lambda: set(service.ready().values()) == {"down"}, "both models are down")
    assert ASK.get(f"{service.url}/ready").status_code == 503
    assert ASK.get(f"{service.url}/health").status_code == 200


async def test_deadlines_and_stopping(own_service: Make) -> None:
    service = own_service(request_timeout=2.5, max_wait=0.4, shutdown_grace=1.2).start()
    await deadlines(service)
    await stopping(service)


async def deadlines(service: Service) -> None:
    engine = service.engines["coder"]
    engine.set(ttft_ms=5000)
    before_first_token = service.post("/v1/chat/completions", chat())
    assert before_first_token.status_code == 504
    assert before_first_token.json()["error"]["code"] == "deadline_exceeded"
    wait_for(lambda: engine.state()["running"] == 0, "the engine is free")

    engine.set(ttft_ms=0, itl_ms=100, completion_tokens=100)
    mid_stream = service.post("/v1/chat/completions", chat(stream=True))
    assert events(mid_stream.text)[-1]["error"]["code"] == "deadline_exceeded"
    assert mid_stream.text.endswith("data: [DONE]\n\n")

    async with service.client() as client:
        asking = [client.post("/v1/chat/completions", json=chat()) for _ in range(SLOTS + 1)]
        answers = await asyncio.gather(*asking)
    late = [answer for answer in answers if answer.status_code == 429]
    assert [answer.json()["error"]["code"] for answer in late] == ["queue_timeout"]
    assert int(late[0].headers["retry-after"]) >= 1

    # A client that does not read cannot hold its slot past the deadline.
    engine.set(itl_ms=0, completion_tokens=1_000_000)
    body = json.dumps(chat(stream=True)).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", service.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: service.gauge("duoserve_in_flight") == 1, "the slot is taken")
        wait_for(lambda: service.gauge("duoserve_in_flight") == 0, "the slot is given back")
        wait_for(lambda: engine.state()["running"] == 0, "the engine is free")


async def stopping(service: Service) -> None:
    service.engines["coder"].set(itl_ms=20, completion_tokens=40)
    service.engines["general"].set(itl_ms=100, completion_tokens=1000)
    assert service.router
    async with service.client() as client:
        short = asyncio.create_task(client.post("/v1/chat/completions", json=chat(stream=True)))
        long = asyncio.create_task(
            client.post("/v1/chat/completions", json=chat(model="general", stream=True))
        )
        await until(lambda: service.gauge("duoserve_in_flight") == 2, "both are being answered")
        service.router.child.send_signal(signal.SIGTERM)
        finished, ended = await short, await long
    assert not any("error" in event for event in events(finished.text))
    assert finished.text.count('"content"') > 40
    assert events(ended.text)[-1]["error"]["code"] == "shutting_down"
    assert service.router.child.wait(PATIENCE) == 0
    assert service.engines["general"].state()["running"] == 0


def test_bad_settings_are_one_line_and_status_78(own_service: Make) -> None:
    for setting in ({"litellm_master_key": ""}, {"litellm_master_key": "sk-1234"}, {"queue_max": "many"}):
        service = own_service(**setting)
        with pytest.raises(AssertionError):
            service.start_router()
        assert service.router
        assert service.router.child.returncode == 78
        assert service.log().startswith(f"router: {next(iter(setting)).upper()} ")
        assert len(service.log().splitlines()) == 1


async def test_a_request_that_kills_its_engine_twice_is_not_sent_again(own_service: Make) -> None:
    service = own_service().start()
    engine = service.engines["coder"]
    engine.set(ttft_ms=600_000)
    poison = chat("the end", structured_outputs={"regex": "(a|b)+"})
    for _ in range(2):
        async with service.client() as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=poison))
            await until(lambda: engine.state()["running"] == 1, "the engine works on it")
            engine.stop(signal.SIGKILL)
            assert (await asking).status_code == 503
        wait_for(lambda: service.ready()["coder"] == "down", "the engine is seen to be down")
        engine.start(ttft_ms=600_000)
        service.wait_ready()
    answer = service.post("/v1/chat/completions", poison | {"user": "another"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "request_quarantined"
    assert engine.requests() == []
    engine.set(ttft_ms=0)
    assert service.post("/v1/chat/completions", chat("hello")).status_code == 200
    metrics = ASK.get(f"{service.url}/metrics", headers=service.headers).text
    assert 'duoserve_rejections_total{reason="quarantined"} 1.0' in metrics
    assert "died of request" in service.log()


@pytest.fixture(scope="module")
def one_impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("impatient"), stall_seconds=3) as service:
        yield service


@pytest.fixture
def impatient(one_impatient: Service) -> Service:
    """A service that takes an engine for one that hangs after 3 seconds, with its engines as at the start."""
    for engine in one_impatient.engines.values():
        engine.reset()
    one_impatient.wait_ready()
    return one_impatient


@pytest.mark.parametrize("fault", ["makes no token", "is stopped"])
async def test_an_engine_that_hangs_is_down_until_it_makes_tokens_again(
    impatient: Service, fault: str
) -> None:
    service = impatient
    engine, other = service.engines.values()
    engine.set(itl_ms=20, completion_tokens=100_000)
    other.set(itl_ms=20, completion_tokens=100_000)
    async with service.client() as client:

        async def ask(alias: str = "coder", **more: Any) -> tuple[int, str]:
            answer = await client.post("/v1/chat/completions", json=chat(model=alias, **more))
            return answer.status_code, answer.text

        spared = asyncio.create_task(ask("general", stream=True, max_tokens=200))
        asking = [asyncio.create_task(ask(stream=number % 2 == 0)) for number in range(SLOTS)]
        await until(lambda: service.gauge("duoserve_in_flight") == SLOTS + 1, "every slot is taken")
        await until(lambda: streaming(engine) == SLOTS // 2, "the streams run")
        waiting = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: service.gauge("duoserve_waiting") == 3, "the others wait")
        engine.set(hang=True)
        if fault == "is stopped":
            engine.send(signal.SIGSTOP)
        answers = await asyncio.gather(*asking)
        refused = await asyncio.gather(*waiting)
        assert (await spared)[0] == 200 and "engine_hangs" not in (await spared)[1]
    for number, (status, text) in enumerate(answers):
        assert status == (503 if number % 2 else 200)
        error = json.loads(text) if number % 2 else events(text)[-1]
        assert error["error"]["code"] == "engine_hangs", text[-300:]
    assert [(status, json.loads(text)["error"]["code"]) for status, text in refused] == [
        (503, "model_down")
    ] * 3
    assert service.ready() == {"coder": "down", "general": "ready"}
    again = service.post("/v1/chat/completions", chat())
    assert again.status_code == 503 and int(again.headers["retry-after"]) >= 1
    if fault == "is stopped":
        engine.send(signal.SIGCONT)
    engine.set(hang=False, itl_ms=0, completion_tokens=1)
    service.wait_ready()
    assert service.post("/v1/chat/completions", chat()).status_code == 200


async def test_a_long_wait_for_the_first_token_of_a_slow_engine_is_no_hang(impatient: Service) -> None:
    """Others get tokens meanwhile, so the engine is at work."""
    service = impatient
    service.engines["coder"].set(itl_ms=20, completion_tokens=400)
    async with service.client() as client:
        quick = chat(stream=True, max_tokens=400)
        slow = chat('mock:{"ttft_ms": 6000, "completion_tokens": 1}')
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body) for body in (quick, slow))
        )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "engine_hangs" not in answers[0].text


async def test_an_engine_that_only_compiles_a_large_grammar_does_not_hang(impatient: Service) -> None:
    """None of its figures moves meanwhile, but it answers whoever else asks."""
    service = impatient
    slow = chat('mock:{"ttft_ms": 9000, "completion_tokens": 1}')
    async with service.client() as client:
        answer = await client.post("/v1/chat/completions", json=slow)
    assert answer.status_code == 200, answer.text
