"""Measured against a mock engine whose timing is known: what is measured is what was set."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from loadtests.measure.connection import Connection
from loadtests.measure.sample import Sample
from loadtests.workload.request import LoadRequest
from mock_engine import MockEngine

TTFT, ITL, TOKENS = 200.0, 20.0, 25


@pytest.fixture(scope="module")
def process() -> Iterator[MockEngine]:
    with MockEngine(ttft_ms=TTFT, itl_ms=ITL, completion_tokens=TOKENS) as running:
        yield running


@pytest.fixture
def engine(process: MockEngine) -> MockEngine:
    process.reset()
    return process


def request(min_tokens: int = 1, path: str = "/v1/chat/completions", **knobs: Any) -> LoadRequest:
    text = f"Hello. mock:{json.dumps(knobs)}"
    body: dict[str, Any] = {"model": "coder", "stream": True, "stream_options": {"include_usage": True}}
    body |= {"prompt": text} if path.endswith("/completions") and "chat" not in path else {}
    body |= {"messages": [{"role": "user", "content": text}]} if "chat" in path else {}
    return LoadRequest("chat", path, body, min_tokens)


def measure(engine: MockEngine, *requests: LoadRequest) -> list[Sample]:
    connection = Connection(engine.url, "key", timeout=5)
    try:
        return [connection.measure(r) for r in requests]
    finally:
        connection.close()


@pytest.mark.parametrize("knobs", [{"garbage": True}, {"text": " "}])
def test_any_text_will_do_where_the_weights_are_random(engine: MockEngine, knobs: dict[str, Any]) -> None:
    checked = request(**knobs)
    unchecked = replace(checked, any_text=True)
    assert [sample.ok for sample in measure(engine, checked, unchecked)] == [False, True]


@pytest.fixture
def slack(engine: MockEngine) -> float:
    """How late this machine is by itself, in ms: what a request takes for which nothing is to be waited."""
    samples = measure(engine, *[request(ttft_ms=0, itl_ms=0, completion_tokens=1)] * 9)
    engine.reset()
    return 3 * median(s.total or 0 for s in samples)


def within(measured: float, expected: float, slack: float) -> bool:
    """10 ms, 5 % or twice what the machine is late by itself, whichever is more."""
    return abs(measured - expected) <= max(10, 0.05 * expected, 2 * slack)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_times_are_those_that_were_set(engine: MockEngine, path: str, slack: float) -> None:
    samples = measure(engine, *[request(path=path)] * 5)
    assert [s.outcome for s in samples] == ["ok"] * 5
    # The quickest of each: whatever else runs on this machine makes a request later, never earlier.
    assert within(min(s.ttft or 0 for s in samples), TTFT, slack)
    assert within(min(s.first_content or 0 for s in samples), TTFT, slack)
    assert within(median(gap for s in samples for gap in s.itl), ITL, slack)
    assert within(min(s.total or 0 for s in samples), TTFT + (TOKENS - 1) * ITL, slack)
    assert {(s.completion_tokens, s.events, len(s.itl)) for s in samples} == {(TOKENS, TOKENS, TOKENS - 1)}


def test_times_agree_with_the_engines_own_clock(engine: MockEngine, slack: float) -> None:
    """What lies between them is the connection; which of the two notes its time first is the scheduler's."""
    samples = measure(engine, *[request(completion_tokens=5)] * 8)
    served = [(r["ended_at"] - r["arrived_at"]) * 1000 for r in engine.requests()]
    apart = [(s.total or 0) - took for s, took in zip(samples, served, strict=True)]
    assert abs(median(apart)) < max(5, slack)


def test_a_stall_is_one_long_gap(engine: MockEngine, slack: float) -> None:
    samples = measure(engine, *[request(stall_at=10, stall_ms=300)] * 3)
    assert all(s.ok for s in samples)
    after = [(s.ttft or 0) + sum(s.itl[:10]) for s in samples]
    assert within(min(after), TTFT + 10 * ITL + 300, slack)
    assert min(sum(gap > 150 for gap in s.itl) for s in samples) == 1


def test_reasoning_is_a_first_token_but_not_yet_content(engine: MockEngine, slack: float) -> None:
    samples = measure(engine, *[request(reasoning_tokens=5)] * 3)
    assert within(min(s.ttft or 0 for s in samples), TTFT, slack)
    assert within(min(s.first_content or 0 for s in samples), TTFT + 5 * ITL, slack)


def test_slow_headers_count_as_waiting(engine: MockEngine, slack: float) -> None:
    samples = measure(engine, *[request(header_delay_ms=400, ttft_ms=0, completion_tokens=2)] * 3)
    assert within(min(s.ttft or 0 for s in samples), 400, slack)


@pytest.mark.parametrize(
    ("knobs", "outcome"),
    [
        ({"error_at": 3}, "error_event"),
        ({"no_done": True}, "truncated"),
        ({"drop_at": 3}, "truncated"),
        ({"drop_at": 0}, "connection"),
        ({"completion_tokens": 0}, "empty"),
        ({"garbage": True}, "garbage"),
        ({"status": 429, "retry_after": "3"}, "rejected"),
        ({"status": 503}, "unavailable"),
        ({"status": 500}, "http_500"),
        ({"ttft_ms": 9000}, "timeout"),
    ],
)
def test_every_fault_is_an_outcome_of_its_own(
    engine: MockEngine, knobs: dict[str, Any], outcome: str
) -> None:
    fast: dict[str, Any] = {"ttft_ms": 5, "itl_ms": 1}
    connection = Connection(engine.url, "key", timeout=1)
    first, after = connection.measure(request(**fast | knobs)), connection.measure(request(**fast))
    connection.close()
    assert (first.outcome, after.outcome) == (outcome, "ok")
    assert first.ok is False
    assert first.detail
    if outcome == "rejected":
        assert first.retry_after == 3


def test_too_short_an_answer_is_truncated(engine: MockEngine) -> None:
    (sample,) = measure(engine, request(min_tokens=50, itl_ms=0))
    assert sample.outcome == "truncated"
    assert "25 tokens, at least 50" in sample.detail


@pytest.mark.parametrize("size", [1, 3, 50])
def test_events_cut_anywhere_are_read_the_same(engine: MockEngine, size: int) -> None:
    whole, cut = measure(engine, request(itl_ms=1, ttft_ms=1), request(itl_ms=1, ttft_ms=1, split_bytes=size))
    assert (cut.outcome, cut.events, cut.completion_tokens) == ("ok", whole.events, whole.completion_tokens)


def test_an_open_loop_request_is_timed_from_when_it_was_due(engine: MockEngine, slack: float) -> None:
    connection = Connection(engine.url, "key")
    sample = connection.measure(request(ttft_ms=0, itl_ms=0), due=time.monotonic() - 0.5)
    connection.close()
    assert sample.late >= 500
    assert sample.ttft is not None
    assert 0 <= sample.ttft - sample.late < max(200, 10 * slack)


def test_a_connection_that_the_server_closed_is_opened_again(engine: MockEngine) -> None:
    samples = measure(engine, *[request(ttft_ms=1, itl_ms=0, keep_alive=False)] * 3)
    assert [s.outcome for s in samples] == ["ok"] * 3


def test_an_absent_server_is_a_failed_connection() -> None:
    with MockEngine() as gone:
        pass
    (sample,) = measure(gone, request())
    assert sample.outcome == "connection"
    assert "refused" in sample.detail
