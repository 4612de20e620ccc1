import pytest

from ui.metrics import MetricsSample, parse, points, quantile, ttft_target

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


def test_the_target_is_the_promise_in_seconds() -> None:
    assert 0.05 < ttft_target() < 10
