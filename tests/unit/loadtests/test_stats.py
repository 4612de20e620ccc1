from __future__ import annotations

import numpy as np
import pytest

from loadtests.judge import stats


def test_percentile_is_numpys() -> None:
    values = [3.0, 1.0, 2.0, 10.0]
    assert stats.percentile(values, 0.95).value == pytest.approx(np.percentile(values, 95))


def test_too_few_values_give_no_interval() -> None:
    needed = stats.needed_for(0.95)
    assert needed == 72
    assert not stats.percentile(list(range(needed - 1)), 0.95).certain
    assert stats.percentile(list(range(needed + 1)), 0.95).certain


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_interval_covers_the_truth_as_often_as_it_says(quantile: float) -> None:
    rng = np.random.default_rng(1)
    truth = -np.log(1 - quantile)  # of an exponential distribution
    hits = 0
    for _ in range(400):
        estimate = stats.percentile(list(rng.exponential(size=120)), quantile)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= truth <= estimate.high
    assert hits / 400 >= 0.93


def test_ratio_of_equal_distributions_is_not_called_different() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(100, 10, 200), rng.normal(100, 10, 200)
    ratio = stats.ratio(list(a), list(b), 0.5)
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1 < ratio.high


def test_ratio_finds_a_real_difference() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(100, 10, 100)
    ratio = stats.ratio(list(base * 1.2), list(base), 0.5, paired=True)
    assert ratio.value == pytest.approx(1.2)
    assert ratio.low is not None
    assert ratio.low > 1.15


def test_share_knows_that_nothing_seen_is_not_never() -> None:
    estimate = stats.share(0, 50)
    assert estimate.value == 0
    assert estimate.high is not None
    assert 0.03 < estimate.high < 0.12
