"""The search for the capacity: what it says when time, load generator or service are at their limits."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadtests.judge import slo
from loadtests.judge.capacity import Level, bottleneck
from loadtests.judge.search import Search, seek, users
from loadtests.judge.slo import Objectives
from loadtests.judge.stats import Estimate, chance_of_at_most, chance_of_quantile
from loadtests.judge.verdict import Verdict
from loadtests.measure.engines import EngineFigures, parsed
from loadtests.measure.sample import Sample
from loadtests.measure.stage import GeneratorHealth, Stage
from tests.support import queueing
from tests.support.queueing import QueueModel, search

LIMIT = 500.0
SLOTS = QueueModel(4, read=(0.03, 0.03), answer=(0.6, 1.2), pause=(0.5, 3))


@pytest.fixture
def promised(tmp_path: Path) -> Objectives:
    return slo.load("gpu", queueing.objectives(tmp_path, limit=LIMIT, users=5))


def test_short_of_time_the_interval_is_wide_and_says_so(promised: Objectives) -> None:
    truth = SLOTS.capacity(LIMIT)
    found = [search(SLOTS, promised, f"short/{seed}", budget=60) for seed in range(20)]
    assert all("time was up" in each.stopped for each in found)
    assert all(each.high is None or each.high - each.low > 1 for each in found)
    assert sum(each.low <= truth and (each.high or truth) >= truth for each in found) >= 19


def test_nothing_is_known_of_loads_beyond_the_highest_measured(promised: Objectives) -> None:
    found = search(QueueModel(1000, (0, 0), (0.1, 0.1), (1, 1)), promised, "idle", budget=90)
    assert found.high is None and found.breaks is None
    assert found.low <= found.value <= found.levels[-1].load
    assert str(found).startswith(f"at least {found.low:g} users")
    assert found.exit_status == 0


def test_even_one_user_may_be_too_many(promised: Objectives) -> None:
    found = search(QueueModel(1, (0.7, 0.7), (0.1, 0.1), (1, 1)), promised, "slow")
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.exit_status == 1


def test_a_saturated_generator_is_not_measured_with() -> None:
    """Once may be chance; twice ends the search, and what it measured counts for nothing."""
    asked = []

    def measure(load: float, left: float) -> Stage:
        asked.append(load)
        return Stage(int(load), 0, 20, SLOTS.samples(int(load), 90, Random(1)), GeneratorHealth(cpu=0.99))

    levels = Search(users(), 5.0)
    found, stages = seek(levels, "users", measure, lambda *_: [], ends=1000, seconds=20, clock=lambda: 0.0)
    assert asked == [5, 5] and stages == []
    assert "saturated at 5 users" in found.stopped
    assert found.exit_status == 2 and found.high is None
    assert str(found).startswith("not known")


def test_answers_that_are_slow_together_tell_less() -> None:
    apart = [number % 25 == 0 for number in range(1000)]
    together = [number % 250 < 10 for number in range(1000)]
    assert sum(apart) == sum(together)
    assert 0.5 < chance_of_at_most(together, 0.05) < chance_of_at_most(apart, 0.05) < 1
    assert chance_of_quantile([100.0] * 72, 0.95, 200) > 0.95
    assert chance_of_quantile([100.0] * 5, 0.95, 200) < 0.9
    assert chance_of_quantile([300.0] * 5, 0.95, 200) < 0.01


def level(load: float, metric: str = "ttft", *, queue: float = 0.0, **engine: float) -> Level:
    figures = {"queue_ms": 1.0, "reading_ms": 50.0, "step_ms": 10.0, "kv_cache": 0.1} | engine
    ran = EngineFigures(100, preemptions=0, **figures)
    verdict = Verdict(
        "the weakest", True, metric, "ms", 500, False, "met", "", int(load), Estimate(1, 1, 1, 1)
    )
    return Level(load, 20, 100, 1.0, queue, 75, {"coder": ran}, [verdict], "the weakest")


@pytest.mark.parametrize(
    ("beyond", "cause"),
    [
        (level(6, queue=400), "queue"),
        (level(6, queue_ms=400), "queue of coder"),
        (level(6, reading_ms=600, step_ms=40), "reading prompts of coder"),
        (level(6, "total", reading_ms=600, step_ms=40), "step time of coder"),
        (level(6, queue_ms=400, kv_cache=0.99), "KV cache of coder"),
    ],
)
def test_what_breaks_first_is_what_grew_most(beyond: Level, cause: str) -> None:
    """Slower steps are no reason for a late first token."""
    found = bottleneck([level(1), level(5), beyond, level(9, queue=9999)], 5)
    assert found and found.load == 6
    assert f"the weakest ({cause}: " in str(found)


def test_without_the_engines_metrics_why_is_not_known() -> None:
    blind = Level(6, 20, 100, 0.0, 0.0, 75, {}, level(6).verdicts, "the weakest")
    assert "why is not known" in str(bottleneck([blind], 5))
    assert bottleneck([level(5)], 5) is None


def test_vllms_metrics_are_read() -> None:
    text = (
        "# TYPE vllm:num_preemptions_total counter\n"
        'vllm:num_preemptions_total{engine="0",model_name="a"} 2.0\n'
        'vllm:num_preemptions_total{engine="1",model_name="a"} 3.0\n'
        'vllm:request_queue_time_seconds_sum{engine="0",model_name="{a}"} 1.5e-03\n'
        "python_info 1\n"
    )
    assert parsed(text) == {"num_preemptions_total": 5, "request_queue_time_seconds_sum": 0.0015}


def test_stages_at_one_level_add_up() -> None:
    figures = EngineFigures(10, 100.0, 50.0, 10.0, 0.5, 1)
    one = Stage(5, 0, 20, [Sample("completion", 1.0), Sample("completion", 19.0)], engines={"coder": figures})
    more = EngineFigures(30, 200.0, 50.0, 10.0, 0.2, 0)
    other = Stage(
        5, 0, 20, [Sample("completion", 300.0), Sample("completion", 310.0)], engines={"coder": more}
    )
    both = one.with_more(other)
    assert [sample.started for sample in both.samples] == [1, 19, 19, 29]
    assert both.seconds == 40
    assert both.engines["coder"] == EngineFigures(40, 175.0, 50.0, 10.0, 0.5, 1)
    assert Stage.from_json(both.as_json()) == both
