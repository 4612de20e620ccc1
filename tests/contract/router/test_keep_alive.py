"""Streams whose prompt is read for long: what the client sees meanwhile, and of failures."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from anthropic import Anthropic
from openai import OpenAI

from tests.support import ROOT
from tests.support.service import ASK, KEY, SLOTS, Service, chat
from tests.support.waiting import until

Json = dict[str, Any]
PING = ": ping"
HI = chat()["messages"]
BODIES: dict[str, Json] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 20},
    "/v1/responses": {"input": "hi"},
}
# How an error begins in a stream of each.
ERRORS = {path: 'data: {"error":' for path in BODIES} | {
    "/v1/messages": "event: error",
    "/v1/responses": "event: error",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("silent")
    config = yaml.safe_load((ROOT / "config" / "litellm.yaml").read_text())
    config.setdefault("router_settings", {})["fallbacks"] = [{"coder": ["general"]}]
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    with Service(folder, litellm_config=path, keepalive_seconds=0.2, max_wait=1) as service:
        yield service


@pytest.mark.parametrize("path", BODIES)
def test_a_client_sees_that_its_prompt_is_being_read(service: Service, path: str) -> None:
    engine = service.engines["coder"]
    engine.set(ttft_ms=1500)
    body = {"model": "coder", "stream": True, **BODIES[path]}
    with ASK.stream("POST", f"{service.url}{path}", json=body, headers=service.headers) as answer:
        lines = answer.iter_lines()
        assert next(lines) == PING
        assert engine.requests()[0]["chunks"] == 0  # the engine has not begun to answer
        rest = [line for line in lines if line not in ("", PING)]
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    engine.reset()
    quick = service.post(path, body).text
    assert PING not in quick and len(rest) == len([line for line in quick.splitlines() if line])
    assert service.record(answer)["ttft_ms"] >= 1500


def test_openais_and_anthropics_clients_skip_the_comments(service: Service) -> None:
    service.engines["coder"].set(ttft_ms=700, text="all is well")
    openai = OpenAI(base_url=f"{service.url}/v1", api_key=KEY, http_client=ASK)
    stream = openai.chat.completions.create(model="coder", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream).strip() == "all is well"
    with openai.responses.stream(model="coder", input="hi") as events:
        assert events.get_final_response().output_text.strip() == "all is well"
    anthropic = Anthropic(base_url=service.url, api_key=KEY)
    with anthropic.messages.stream(model="coder", messages=HI, max_tokens=20) as text:
        assert text.get_final_text().strip() == "all is well"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("fault", [{"drop_at": 0}, {"error_at": 0}], ids=["dropped", "told"])
def test_a_failure_after_a_comment_is_an_event_and_before_it_a_status(
    service: Service, path: str, fault: Json
) -> None:
    body = {"model": "general", "stream": True, **BODIES[path]}
    service.engines["general"].set(times=1, **fault)
    quick = service.post(path, body)
    assert (quick.status_code, service.record(quick)["error"]) == (503, "engine_failed")
    service.wait_ready()
    service.engines["general"].set(times=1, ttft_ms=700, **fault)
    late = service.post(path, body)
    assert late.status_code == 200 and late.text.startswith(PING)
    events = [event for event in late.text.split("\n\n") if event and event != PING]
    assert events[0].startswith(ERRORS[path]) and "failed to answer" in events[0]
    assert service.record(late)["error"] == "engine_failed"
    service.wait_ready()


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/v1/completions"])
def test_another_model_still_answers_after_a_comment(service: Service, path: str) -> None:
    service.engines["coder"].set(times=1, ttft_ms=700, drop_at=0)
    answer = service.post(path, {"model": "coder", "stream": True, **BODIES[path]})
    assert answer.status_code == 200 and answer.text.startswith(PING)
    assert "failed" not in answer.text and "error:" not in answer.text
    record = service.record(answer)
    assert (record["alias"], record["fallback_from"], record["error"]) == ("general", "coder", None)
    service.wait_ready()


async def test_a_wait_that_is_too_long_is_a_status(service: Service) -> None:
    """Though it is longer than the time after which a comment is sent."""
    async with service.client() as client:
        asking = [
            asyncio.create_task(client.post("/v1/completions", json={"prompt": 'mock:{"ttft_ms": 60000}'}))
            for _ in range(SLOTS)
        ]
        await until(lambda: service.gauge("duoserve_in_flight") == SLOTS, "every slot is taken")
        late: httpx.Response = await client.post("/v1/completions", json={"prompt": "hi", "stream": True})
        assert late.status_code == 429 and late.json()["error"]["code"] == "queue_timeout"
        for task in asking:
            task.cancel()
        await until(lambda: service.gauge("duoserve_in_flight") == 0, "every slot is free")
