"""Each answer is counted as one that kept or broke the promises, for 30 days."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.judge import slo
from loadtests.settings import SettingError
from tests.support.service import ASK, Json, Service, chat

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
Counts = Counter[tuple[str, ...]]


def read(service: Service, name: str) -> Counts:
    """The values of a metric by its labels in the order of their names."""
    text = ASK.get(f"{service.url}/metrics", headers=service.headers).text
    found: Counts = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in sorted(sample.labels))] = int(sample.value)
    return found


def judged(service: Service, **body: Any) -> tuple[dict[str, bool], Json]:
    """Of each promise that a request was counted for, whether it was kept; and the request in the log."""
    before = read(service, "duoserve_promise_requests_total")
    record = service.record(service.post(CHAT, chat(**body)))
    added = read(service, "duoserve_promise_requests_total") - before
    assert all(count == 1 and alias == "coder" for (alias, _, _), count in added.items())
    return {promise: kept == "yes" for _, kept, promise in added}, record


def limits(service: Service) -> dict[str, float]:
    """The promised times in seconds."""
    text = ASK.get(f"{service.url}/metrics", headers=service.headers).text
    (family,) = (
        f for f in text_string_to_metric_families(text) if f.name == "duoserve_promise_limit_seconds"
    )
    return {sample.labels["promise"]: sample.value for sample in family.samples}


def held(record: Json, limit: dict[str, float]) -> dict[str, bool]:
    """What a streamed answer of 60 tokens is counted as, by its times in the log."""
    return {
        "availability": True,
        "ttft": record["ttft_ms"] <= limit["ttft"] * 1000,
        "completion": record["total_ms"] <= limit["completion"] * 1000,
    }


def test_a_quick_answer_keeps_the_promises_and_a_slow_one_breaks_them(service: Service) -> None:
    assert limits(service) == {"ttft": 0.5, "completion": 2.0}
    engine = service.engines["coder"]
    engine.set(completion_tokens=60)
    kept, record = judged(service, stream=True)
    assert kept == held(record, limits(service))
    engine.set(ttft_ms=600, itl_ms=30)
    assert judged(service, stream=True)[0] == {"availability": True, "ttft": False, "completion": False}
    assert judged(service)[0] == {"availability": True, "completion": False}
    engine.set(completion_tokens=20)
    assert judged(service, stream=True)[0] == {"availability": True, "ttft": False}
    # Agents send longer prompts than those that the times are promised for.
    assert judged(service, stream=True, tools=[TOOL])[0] == {"availability": True}


def test_what_the_service_fails_breaks_a_promise_and_what_the_client_does_wrong_does_not(
    service: Service,
) -> None:
    engine = service.engines["coder"]
    engine.set(status=500)
    assert judged(service)[0] == {"availability": False}
    engine.set(status=200, error_at=3)
    assert judged(service, stream=True)[0]["availability"] is False
    engine.reset()
    assert judged(service, temperature="hot")[0] == {}


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("cpu"), profile="cpu") as service:
        yield service


def test_the_cpu_profile_has_its_own_limits_and_a_restart_forgets_no_answer(on_cpu: Service) -> None:
    try:
        promised = {o.metric: o for o in slo.load("cpu").promises().items if o.name.startswith("p95")}
    except SettingError:
        pytest.skip("this CPU was not measured")
    limit = limits(on_cpu)
    assert limit["ttft"] == pytest.approx(promised["ttft"].limit / 1000)
    assert limit["completion"] == pytest.approx(promised["total"].limit / 1000)
    engine = on_cpu.engines["coder"]
    engine.set(completion_tokens=60)
    kept, record = judged(on_cpu, stream=True)
    assert kept == held(record, limit)
    engine.set(completion_tokens=20, ttft_ms=limit["ttft"] * 1000 + 100)
    assert judged(on_cpu, stream=True)[0] == {"availability": True, "ttft": False}

    before = read(on_cpu, "duoserve_promise_requests_30d")
    assert before["coder", "no", "ttft"] >= 1 and before["coder", "yes", "availability"] == 2
    assert on_cpu.router
    on_cpu.router.stop()
    on_cpu.start_router()
    assert read(on_cpu, "duoserve_promise_requests_30d") == before
    assert not any(read(on_cpu, "duoserve_promise_requests_total").values())
