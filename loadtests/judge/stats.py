"""Percentiles, shares and ratios with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % confidence interval (None: too few values for that side), the number of values."""

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def certain(self) -> bool:
        """Whether there were enough values for an interval."""
        return self.low is not None and self.high is not None

    def __str__(self) -> str:
        """As in `412 (398-441)`."""
        if not self.certain:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g}-{self.high:.4g})"


def needed_for(quantile: float) -> int:
    """How many values an interval of this quantile takes; with fewer, it would end beyond the largest one."""
    tail = (1 - CONFIDENCE) / 2
    return math.ceil(math.log(tail) / math.log(max(quantile, 1 - quantile)))


def percentile(values: Sequence[float], quantile: float) -> Estimate:
    """The quantile (0-1) of `values` and its distribution-free interval from order statistics.

    Linear interpolation, as in NumPy and vLLM's own benchmark. The interval is that of Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2. Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("no values")
    data = np.sort(np.asarray(values, dtype=float))
    value = float(np.quantile(data, quantile))
    count = len(data)
    tail = (1 - CONFIDENCE) / 2
    # Ranks (from 1) between which the quantile lies with 95 % probability.
    low = int(scipy.stats.binom.ppf(tail, count, quantile))
    high = int(scipy.stats.binom.ppf(1 - tail, count, quantile)) + 1
    return Estimate(
        value,
        float(data[low - 1]) if low >= 1 else None,
        float(data[high - 1]) if high <= count else None,
        count,
    )


def share(hits: int, count: int) -> Estimate:
    """`hits` of `count` as a share (0-1), with Wilson's interval. Raises ValueError when `count` is 0."""
    if not count:
        raise ValueError("no values")
    interval = scipy.stats.binomtest(hits, count).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(hits / count, float(interval.low), float(interval.high), count)


def chance_of_at_most(hits: Sequence[bool], limit: float, clustering: float = 1.0) -> float:
    """The probability that what `hits` are drawn from is true in a share of at most `limit` (0-1).

    By Jeffreys' prior: Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, 2001. `hits`
    are in the order of time. Slow answers come together and tell less than independent ones, so they count as
    fewer: divided by their own clustering, or by `clustering` where that is more.
    """
    clusters = max(clustering, _clustering(np.asarray(hits)))
    count, found = len(hits) / clusters, sum(hits) / clusters
    return float(scipy.stats.beta.cdf(limit, found + 0.5, count - found + 0.5))


def chance_of_quantile(values: Sequence[float], quantile: float, limit: float) -> float:
    """The probability that the quantile (0-1) of what `values` are drawn from is at most `limit`."""
    data = np.asarray(values, dtype=float)
    # Where none or few are over the limit, the slowest tenth tells how they come together.
    slowest = data > np.quantile(data, 0.9) if len(data) else data
    return chance_of_at_most(list(data > limit), 1 - quantile, _clustering(slowest))


def _clustering(hits: np.ndarray) -> float:
    """How many times the variance of the share is that of independent hits, by batches; at least 1."""
    size = int(len(hits) ** (2 / 3))
    share = hits.mean() if len(hits) else 0.0
    if size < 4 or share in (0, 1):
        return 1.0
    batches = hits[: size * (len(hits) // size)].reshape(-1, size).mean(axis=1)
    return max(1.0, float(batches.var(ddof=1)) * size / (share * (1 - share)))


def ratio(
    above: Sequence[float], below: Sequence[float], quantile: float, *, paired: bool = False
) -> Estimate:
    """quantile(above) / quantile(below) with a bootstrap interval; `paired` when measured in turns.

    The seed is fixed, so the same values give the same interval. Fewer than 10 values give none.
    """
    top, bottom = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    value = float(np.quantile(top, quantile) / np.quantile(bottom, quantile))
    count = min(len(top), len(bottom))
    if count < 10:
        return Estimate(value, None, None, count)
    rng = np.random.default_rng(20_240)
    first = rng.integers(0, len(top), (RESAMPLES, len(top)))
    second = first if paired else rng.integers(0, len(bottom), (RESAMPLES, len(bottom)))
    ratios = np.quantile(top[first], quantile, axis=1) / np.quantile(bottom[second], quantile, axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), count)


def chance_below(estimate: Estimate, limit: float) -> float:
    """The probability that a ratio is below `limit`, by its interval (lognormal)."""
    if not estimate.low or not estimate.high or estimate.low == estimate.high:
        return 0.5
    deviation = math.log(estimate.high / estimate.low) / (2 * scipy.stats.norm.ppf((1 + CONFIDENCE) / 2))
    return float(scipy.stats.norm.cdf(math.log(limit / estimate.value) / deviation))
