import pytest

from ui.metrics import MetricsSample, Promise, parse, points, quantile

METRICS = """
# TYPE duoserve_ttft_seconds histogram
duoserve_ttft_seconds_bucket{alias="coder",le="0.1"} 10
duoserve_ttft_seconds_bucket{alias="coder",le="0.5"} 19
duoserve_ttft_seconds_bucket{alias="coder",le="+Inf"} 20
duoserve_ttft_seconds_count{alias="coder"} 20
duoserve_ttft_seconds_sum{alias="coder"} 3
# TYPE duoserve_tokens_total counter
duoserve_tokens_total{alias="coder",kind="completion"} 700
duoserve_tokens_total{alias="coder",kind="prompt"} 9000
# TYPE duoserve_waiting gauge
duoserve_waiting{alias="coder"} 3
# TYPE duoserve_in_flight gauge
duoserve_in_flight{alias="coder"} 2
# TYPE duoserve_promise_objective_ratio gauge
duoserve_promise_objective_ratio{promise="ttft"} 0.95
duoserve_promise_objective_ratio{promise="availability"} 0.99
# TYPE duoserve_promise_limit_seconds gauge
duoserve_promise_limit_seconds{promise="ttft"} 0.5
# TYPE duoserve_promise_requests_total counter
duoserve_promise_requests_total{alias="coder",kept="no",promise="ttft"} 1
# TYPE duoserve_promise_requests_30d gauge
duoserve_promise_requests_30d{alias="coder",kept="yes",promise="ttft"} 970
duoserve_promise_requests_30d{alias="coder",kept="no",promise="ttft"} 30
# TYPE duoserve_promise_start_timestamp_seconds gauge
duoserve_promise_start_timestamp_seconds 1.79e9
"""


def test_the_router_s_metrics_are_read_by_model() -> None:
    sample = parse(METRICS, 0)
    assert sample.ttft["coder"] == {0.1: 10, 0.5: 19, float("inf"): 20}
    assert (sample.tokens, sample.waiting, sample.in_flight) == ({"coder": 700}, {"coder": 3}, {"coder": 2})


def test_a_quantile_is_of_the_requests_between_two_samples() -> None:
    before, after = {0.1: 100.0, 0.5: 100.0, 1.0: 100.0}, {0.1: 100.0, 0.5: 190.0, 1.0: 200.0}
    assert quantile(before, after, 0.9) == pytest.approx(0.5)
    assert quantile(before, after, 0.45) == pytest.approx(0.3)
    assert quantile(after, after, 0.5) is None
    assert quantile({}, {0.1: 0.0, float("inf"): 5.0}, 0.5) == 0.1


def test_points_are_rates_and_a_restarted_router_gives_no_negative_ones() -> None:
    samples = [
        MetricsSample(0, tokens={"coder": 100}),
        MetricsSample(10, tokens={"coder": 150}),
        MetricsSample(40, tokens={"coder": 400}, waiting={"coder": 2}),
        MetricsSample(80, tokens={"coder": 10}),
    ]
    course = points(samples, every=30)
    assert [(point.time, point.tokens_per_second, point.waiting) for point in course] == [
        (40, 7.5, 2),
        (80, 0.0, 0),
    ]


def test_promises_are_read_with_how_they_were_kept() -> None:
    sample = parse(METRICS, 0)
    assert sample.promises == {
        "ttft": Promise(0.95, 0.5, {"coder": 970}, {"coder": 30}),
        "availability": Promise(0.99),
    }
    assert (sample.ttft_limit, sample.promises_since) == (0.5, 1.79e9)
    assert MetricsSample(0).ttft_limit is None


def test_the_error_budget_is_what_may_break_a_promise() -> None:
    promise = Promise(0.95, 0.5, {"coder": 970, "general": 80, "new": 0}, {"coder": 30, "general": 20})
    assert promise.budget_left("coder") == pytest.approx(0.4)  # 50 of 1,000 may
    assert promise.budget_left("general") == pytest.approx(-3)
    assert promise.budget_left("new") is None and promise.budget_left("unknown") is None
