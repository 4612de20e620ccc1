"""A turn that reads again what the turn before had read says so, in its headers, the log and the metrics."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import ASK, Json, Service

PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]
AGENT = {"user-agent": "Some-Agent/2.1 (linux)"}
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS: Json = {
    "/v1/chat/completions": {"type": "function", "function": TOOL},
    "/v1/messages": {"name": "f", "input_schema": TOOL["parameters"]},
    "/v1/responses": {"type": "function", **TOOL},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("cache"), window=8000)
    with service:
        yield service


def turn(path: str, system: str, turns: int, **more: Any) -> Json:
    """A turn of an agent: `turns` questions, with answers between them."""
    messages = []
    for i in range(turns):
        messages += [{"role": "user", "content": f"question {i} of {path} {more.get('stream')} " * 30}]
        messages += [{"role": "assistant", "content": f"answer {i}"}]
    body: Json = {"model": "coder", "tools": [TOOLS[path]], **more}
    if path == "/v1/responses":
        return body | {"input": messages[:-1], "instructions": system}
    if path == "/v1/messages":
        return body | {"messages": messages[:-1], "system": system, "max_tokens": 8}
    return body | {"messages": [{"role": "system", "content": system}, *messages[:-1]]}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_changed_system_prompt_is_explained(wide: Service, path: str, stream: bool) -> None:
    rules = "a rule " * 600
    engine = wide.engines["coder"]
    first = wide.post(path, turn(path, rules, 1, stream=stream), **AGENT)
    engine.set(cached_tokens=wide.record(first)["prompt_tokens"])
    second = wide.post(path, turn(path, rules, 2, stream=stream), **AGENT)
    for answer in (first, second):
        assert answer.is_success and "x-duoserve-cache" not in answer.headers
        assert wide.record(answer)["cache"] is None

    engine.set(cached_tokens=16)
    third = wide.post(path, turn(path, f"It is 12:01. {rules}", 3, stream=stream), **AGENT)
    record = wide.record(third)
    figures, _, why = record["cache"].partition("; ")
    assert figures == f"16 of {record['prompt_tokens']:,} tokens"
    assert why == "prefix changed at token 0 (system prompt)"
    assert record["tool"] == "some-agent"
    told = third.headers["x-duoserve-cache"]
    if stream:  # the engine has not counted yet
        estimate = int(told.split(" of ")[1].split()[0].replace(",", ""))
        assert told.startswith("0 of ") and told.endswith(why)
        assert estimate == pytest.approx(record["prompt_tokens"], rel=0.15)
    else:
        assert told == record["cache"]


def test_what_the_engine_dropped_is_in_the_log(wide: Service) -> None:
    engine, path = wide.engines["coder"], PATHS[0]
    engine.set(cached_tokens=0)
    rules = "another rule " * 1500
    wide.record(wide.post(path, turn(path, rules, 1, stream=True)))
    answer = wide.post(path, turn(path, rules, 2, stream=True))
    assert "x-duoserve-cache" not in answer.headers
    assert wide.record(answer)["cache"].endswith("no longer in the engine's cache")


def test_shares_and_reasons_are_metrics_by_client_and_tool(wide: Service) -> None:
    engine, path = wide.engines["coder"], PATHS[0]
    engine.set(cached_tokens=7)
    agent = {"user-agent": "metrics-agent/1", "x-client-id": "ann"}
    wide.record(wide.post(path, turn(path, "a rule " * 600, 1), **agent))
    wide.record(wide.post(path, turn(path, "the rule " * 600, 2), **agent))
    text = ASK.get(f"{wide.url}/metrics", headers=wide.headers).text
    series = {
        (sample.name, *(sample.labels.get(label) for label in ("agent", "kind", "reason"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if (sample.labels.get("client"), sample.labels.get("tool")) == ("ann", "metrics-agent")
    }
    assert series["duoserve_turns_total", "yes", None, None] == 2
    assert series["duoserve_turn_tokens_total", "yes", "cached", None] == 14
    assert series["duoserve_turn_tokens_total", "yes", "prompt", None] > 2000
    assert series["duoserve_read_again_tokens_total", None, None, "system prompt"] > 1000


def test_refusals_explain_nothing(wide: Service) -> None:
    engine, path = wide.engines["coder"], PATHS[0]
    engine.set(cached_tokens=0)
    wide.record(wide.post(path, turn(path, "that rule " * 600, 1)))
    engine.set(status=400, error_message="no", times=1)
    answer = wide.post(path, turn(path, "this rule " * 600, 2))
    assert answer.status_code == 400 and "x-duoserve-cache" not in answer.headers
