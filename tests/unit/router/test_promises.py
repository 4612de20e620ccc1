"""What the router promises, and which requests keep it."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests import settings
from loadtests.judge import slo
from router import promises
from router.exchange import Exchange
from router.paths import CHAT, EMBEDDINGS, METRICS
from router.promises import AVAILABILITY, COMPLETION, TTFT, Promises

FIGURES = {
    "quick": {"step_1_ms": 10, "step_5_ms": 20, "prompt_tokens_per_s": 1500},
    "slow": {"step_1_ms": 100, "step_5_ms": 200, "prompt_tokens_per_s": 150},
}


def times(objectives: slo.Objectives) -> dict[str, float]:
    """The limits of the load tests in seconds, by the router's names."""
    names = {"ttft": TTFT, "total": COMPLETION}
    return {
        names[each.metric]: each.limit / 1000
        for each in objectives.promises().items
        if each.name.startswith("p95")
    }


def test_limits_are_those_of_the_load_tests() -> None:
    promised = Promises("blackwell-96gb", "auto")
    assert promised.limits == times(slo.load("blackwell-96gb"))
    assert promised.objectives == {TTFT: 0.95, COMPLETION: 0.95, AVAILABILITY: 0.99}


@pytest.mark.parametrize("precision", ["auto", "slow"])
def test_limits_on_a_cpu_are_those_of_the_load_tests_once_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    measured = tmp_path / "precision.json"
    monkeypatch.setattr(promises, "_MEASURED", measured)
    monkeypatch.setattr(settings, "MEASURED", measured)
    monkeypatch.setenv("CPU_PRECISION", precision)
    promised = Promises("cpu", precision)
    assert not promised.limits
    asked = Exchange(CHAT, stream=True, completion_tokens=60)
    assert promised.judge(asked, 200, 9.0, 99.0) == {AVAILABILITY: True}
    # In containers, the engine measures while the router already runs.
    measured.write_text(json.dumps({"quickest": "quick", "figures": FIGURES}))
    assert promised.limits == pytest.approx(times(slo.load("cpu")))
    assert promised.judge(asked, 200, 9.0, 99.0).keys() == {TTFT, COMPLETION, AVAILABILITY}


@pytest.mark.parametrize(
    ("status", "ttft", "seconds", "request_", "kept"),
    [
        (200, 0.4, 1.9, {}, {AVAILABILITY: True, TTFT: True, COMPLETION: True}),
        (200, 0.6, 2.1, {}, {AVAILABILITY: True, TTFT: False, COMPLETION: False}),
        (200, None, 2.1, {"stream": False}, {AVAILABILITY: True, COMPLETION: False}),
        (200, 0.6, 9.0, {"completion_tokens": 500}, {AVAILABILITY: True, TTFT: False}),
        # Promised times are not about agents, availability is.
        (200, 3.0, 9.0, {"body": {"tools": [{}]}}, {AVAILABILITY: True}),
        (
            200,
            None,
            0.1,
            {"path": EMBEDDINGS, "stream": False, "completion_tokens": None},
            {AVAILABILITY: True},
        ),
        # The service failed: no engine, the deadline, a stream that broke off.
        (503, None, 0.1, {"reason": "not_ready"}, {AVAILABILITY: False}),
        (504, None, 300.0, {"reason": "deadline"}, {AVAILABILITY: False}),
        (200, 0.1, 1.0, {"reason": "engine_failed"}, {AVAILABILITY: False, TTFT: True}),
        # It did not.
        (400, None, 0.1, {"reason": "bad_request"}, {}),
        (429, None, 0.1, {"reason": "queue_full"}, {}),
        (429, None, 0.1, {"reason": "requests_limit"}, {}),
        # The client left: before a token was due, and after.
        (0, None, 0.3, {"aborted": True}, {}),
        (0, None, 5.0, {"aborted": True}, {TTFT: False}),
        (200, 0.1, 5.0, {"aborted": True}, {AVAILABILITY: True, TTFT: True}),
        (200, None, 0.1, {"path": METRICS}, {}),
    ],
)
def test_a_request_is_held_against_the_promises_that_are_about_it(
    status: int, ttft: float | None, seconds: float, request_: dict[str, Any], kept: dict[str, bool]
) -> None:
    usual: dict[str, Any] = {"path": CHAT, "stream": True, "completion_tokens": 60}
    asked = Exchange(**(usual | request_))
    assert Promises("blackwell-96gb", "auto").judge(asked, status, ttft, seconds) == kept
