"""The sequential search for the highest level of load at which the service keeps what it promises.

Bisection with noisy answers (Waeber, Frazier and Henderson, Bisection Search with Noisy Responses, 2013): for
every level that could be the highest one, the probability that it is. What was measured at a level speaks for
the levels from there on or for those below, as clearly as it was measured.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtests.judge.capacity import Capacity, Level, bottleneck
from loadtests.judge.stats import CONFIDENCE
from loadtests.judge.verdict import Verdict
from loadtests.measure.stage import Stage

# However clearly a level was measured, the service may be different next time.
ERROR = 0.001
# The share of intervals that may be wrong at each look. Searches look often; with this, at least 95 % of the
# searches on simulated engines end with an interval that holds the truth.
LOOK = 0.01
MOST_USERS = 1000
STEP = 1.1  # between two rates


def users() -> list[float]:
    """The levels of a closed loop: numbers of users."""
    return [float(count) for count in range(1, MOST_USERS + 1)]


def rates(start: float) -> list[float]:
    """The levels of an open loop: requests per second, `start` / 100 to `start` * 100 in steps of 10 %."""
    return [float(f"{start * STEP**step:.3g}") for step in range(-48, 49)]


@dataclass
class Search:
    """What is known of the highest level that is kept, among `levels` in ascending order.

    Results are numbers of levels that are kept: 0 for none, 1 for the first alone, and so on.
    """

    levels: Sequence[float]
    start: float
    chances: dict[float, float] = field(default_factory=dict)  # by level, that it is kept
    times: Counter[float] = field(default_factory=Counter)  # by level, how often it was measured

    def probabilities(self) -> np.ndarray:
        """For 0 to all levels, the probability that so many are kept."""
        levels = np.asarray(self.levels)
        # Before anything is measured, the result is as likely below the start as above, and half as likely
        # beyond each doubling of it.
        beyond = np.where(levels <= self.start, 1 - levels / self.start / 2, self.start / levels / 2)
        logs = np.log(-np.diff([1.0, *beyond, 0.0]))
        for level, chance in self.chances.items():
            kept = min(max(chance, ERROR), 1 - ERROR)
            place = int(np.searchsorted(levels, level))
            logs[: place + 1] += np.log(1 - kept)
            logs[place + 1 :] += np.log(kept)
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum())

    def quantile(self, share: float) -> int:
        """The number of levels that is not exceeded with this probability."""
        return int(np.searchsorted(self.probabilities().cumsum(), share))

    def level(self, kept: int) -> float:
        """The highest of so many levels, 0 for none."""
        return self.levels[kept - 1] if kept else 0.0

    def interval(self, wrong: float) -> tuple[int, int]:
        """The interval that is wrong with this probability (0-1)."""
        return self.quantile(wrong / 2), self.quantile(1 - wrong / 2)

    @property
    def known(self) -> bool:
        """Whether the interval is one level, or two of which the upper one was measured, too."""
        low, high = self.interval(LOOK)
        return high == low or (high - low == 1 and self.level(high) in self.chances)

    def next(self) -> float:
        """The level to measure next: the least certain one, for the times that it was measured.

        At most twice the highest one so far, because far beyond the limit answers take long.
        """
        if not self.chances:
            return self.start
        kept = np.clip(1 - self.probabilities().cumsum()[:-1], 1e-12, 1 - 1e-12)  # by level, that it is
        doubt = -kept * np.log(kept) - (1 - kept) * np.log(1 - kept)
        times = np.ones(len(self.levels))
        for level, count in self.times.items():
            times[np.searchsorted(self.levels, level)] += count
        doubt[np.asarray(self.levels) > 2 * max(self.chances)] = -1.0
        return self.levels[int((doubt / times).argmax())]

    def record(self, level: float, chance: float) -> None:
        """Take the probability that `level` is kept, by all that was measured of it so far."""
        self.chances[level] = chance
        self.times[level] += 1


def seek(
    search: Search,
    unit: str,
    measure: Callable[[float, float], Stage],
    judge: Callable[[float, Stage], Sequence[tuple[Verdict, float]]],
    *,
    ends: float,
    seconds: float,
    say: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Capacity, list[Stage]]:
    """Measure one level after the other until the result is known, or too few `seconds` are left to `ends`.

    `measure` takes a level and the seconds that are left. `judge` takes it and all that was measured of it,
    and returns each objective's verdict with the probability that it is kept. Returns the result and a stage
    for each level, in ascending order.
    """
    stages: dict[float, Stage] = {}
    levels: dict[float, Level] = {}
    stopped, saturated = "", Counter[float]()
    while not search.known:
        load, left = search.next(), ends - clock()
        if saturated[load] > 1 or (saturated[load] and left < seconds):  # once may be chance
            stopped = f"the load generator itself was saturated at {load:g} {unit}: use a separate machine"
            break
        if left < seconds:
            stopped = "the time was up (./run loadtest --find-capacity --budget SECONDS gives it more)"
            break
        stage = measure(load, left)
        if stage.health.saturated:
            saturated[load] += 1
            continue
        stages[load] = stages[load].with_more(stage) if load in stages else stage
        levels[load] = level = Level.of(load, stages[load], judge(load, stages[load]))
        search.record(load, level.chance)
        if say:
            low, high = (search.level(kept) for kept in search.interval(1 - CONFIDENCE))
            say(f"{load:g} {unit}: {level}; so far {low:g} to {high:g} {unit}")
    return _capacity(search, [levels[load] for load in sorted(levels)], unit, stopped), [
        stages[load] for load in sorted(stages)
    ]


def _capacity(search: Search, levels: list[Level], unit: str, stopped: str) -> Capacity:
    # A search that ends because the time is up has not chosen when to look.
    low, high = (search.level(kept) for kept in search.interval(1 - CONFIDENCE if stopped else LOOK))
    # Beyond the highest level that was measured, there is only what was assumed before.
    most = levels[-1].load if levels else 0.0
    value = min(search.level(search.quantile(0.5)), most)
    return Capacity(
        unit,
        search.start,
        value,
        min(low, most),
        high if high <= most and high < search.levels[-1] else None,
        levels,
        bottleneck(levels, value),
        stopped,
    )
