"""The kinds of objectives that slo.toml may contain, each with its own way of judging."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from loadtests.judge import stats
from loadtests.judge.stats import Estimate
from loadtests.judge.verdict import NO_VERDICT, Verdict
from loadtests.measure.sample import Sample, found_again, values
from loadtests.measure.stage import Stage

TIMES = ("ttft", "first_content", "total", "itl", "queue_wait")
RATIO_NEEDS = 20  # answers on each side
# What is broken under load is broken from the first word. Later, batching alone changes a word now and then.
SAME_WORDS = 5


@dataclass(frozen=True)
class Evidence:
    """What objectives are judged by."""

    stages: dict[int, Stage]  # by number of users
    users: int  # the level that is judged
    answers: dict[str, str]  # the canaries' answers without load
    promised: Sequence[Percentile]  # the promised latencies

    @property
    def stage(self) -> Stage:
        return self.stages[self.users]


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """An entry of slo.toml. `limit` is already that of the profile."""

    name: str
    metric: str
    limit: float
    promise: bool = False
    lower_bound: bool = False
    kinds: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()

    unit: ClassVar[str]
    metrics: ClassVar[Collection[str]] = TIMES
    # Whether a load generator that comes late spoils it; what is counted in tokens it does not.
    timed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raises ValueError for a metric that this kind of objective does not have."""
        if self.metric not in self.metrics:
            raise ValueError(f"metric {self.metric!r} is none of {', '.join(self.metrics)}")

    @abstractmethod
    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        """The verdict on these samples of the judged stage; None when the objective does not apply."""

    def needs(self, *, judged: bool) -> int:
        """How many answers it takes at the level that is judged, or at one that is compared with."""
        return 0

    def answers(self, samples: Sequence[Sample]) -> int:
        """How many of them `samples` has."""
        return sum(s.ok for s in samples if not self.kinds or s.kind in self.kinds)

    def levels(self) -> set[int]:
        """Numbers of users that it compares with."""
        return set()

    def applies_to(self, suite: str) -> bool:
        """Whether the objective is judged in this suite."""
        return not self.suites or suite in self.suites

    def judge(self, evidence: Evidence) -> Verdict | None:
        """The verdict; None when the objective does not apply to what was measured."""
        samples = evidence.stage.of_kinds(self.kinds)
        if not samples:
            return None if self.kinds else self._undecided(evidence, "no requests were made")
        for users in (evidence.users, *self.levels()):
            stage = evidence.stages.get(users)
            if self.timed and stage and stage.health.saturated:
                why = (
                    f"the load generator itself was saturated ({stage.health.cpu:.0%} of a core, woke up "
                    f"{stage.health.lag_p95_ms:.0f} ms late): use more workers or a separate machine"
                )
                return self._undecided(evidence, why)
        return self._judge(samples, evidence)

    def chance(self, verdict: Verdict, evidence: Evidence) -> float:
        """The probability (0-1) that the objective is kept at this level; `verdict` is that of `judge`."""
        return {"met": 1.0, "missed": 0.0}.get(verdict.verdict, 0.5)

    def _verdict(self, evidence: Evidence, verdict: str, why: str, estimate: Estimate | None) -> Verdict:
        return Verdict(
            name=self.name,
            promise=self.promise,
            metric=self.metric,
            unit=self.unit,
            limit=self.limit,
            lower_bound=self.lower_bound,
            verdict=verdict,
            why=why,
            users=evidence.users,
            estimate=estimate,
        )

    def _undecided(self, evidence: Evidence, why: str, estimate: Estimate | None = None) -> Verdict:
        return self._verdict(evidence, NO_VERDICT, why, estimate)

    def _decide(self, evidence: Evidence, estimate: Estimate, *, remark: str = "") -> Verdict:
        """Hold the estimate against the limit; `remark` is added to the reason."""
        missed = estimate.value < self.limit if self.lower_bound else estimate.value > self.limit
        why = ""
        if missed and self.limit:
            difference = abs(estimate.value - self.limit) / self.limit
            why = f"{'below' if self.lower_bound else 'over'} the limit by {difference:.0%}"
        elif missed:
            why = "none is allowed"
        why = "; ".join(filter(None, (why, remark)))
        return self._verdict(evidence, "missed" if missed else "met", why, estimate)

    def _uncertainty(self, estimate: Estimate) -> str:
        """A remark when the estimate's interval includes the limit."""
        if estimate.low is None or estimate.high is None or not estimate.low <= self.limit <= estimate.high:
            return ""
        return "within the measurement's uncertainty of the limit"


@dataclass(frozen=True, kw_only=True)
class Percentile(Objective):
    """A percentile of a time, in milliseconds."""

    percentile: float

    unit = "ms"
    metrics = (*TIMES, "refusal", "session")

    def answers(self, samples: Sequence[Sample]) -> int:
        return len(values(samples, "session")) if self.metric == "session" else super().answers(samples)

    def needs(self, *, judged: bool) -> int:
        """Enough for an interval at the judged level; lower levels are only compared with."""
        if self.metric == "refusal":
            return 0  # there may never be one
        return stats.needed_for(self.percentile / 100) if judged else RATIO_NEEDS

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        times = values(samples, self.metric)
        if not times:
            # Where nothing was refused, no refusal was slow.
            return None if self.metric == "refusal" else self._undecided(evidence, "no complete answer")
        estimate = stats.percentile(times, self.percentile / 100)
        needed = stats.needed_for(self.percentile / 100)
        clear_miss = estimate.low is not None and estimate.low > self.limit
        if estimate.count < needed and not clear_miss:
            why = f"only {estimate.count} answers, a p{self.percentile:g} takes {needed}"
            return self._undecided(evidence, why, estimate)
        return self._decide(evidence, estimate, remark=self._uncertainty(estimate))

    def chance(self, verdict: Verdict, evidence: Evidence) -> float:
        times = values(evidence.stage.of_kinds(self.kinds), self.metric)
        return stats.chance_of_quantile(times, self.percentile / 100, self.limit)


@dataclass(frozen=True, kw_only=True)
class _Ratio(Objective):
    """The ratio of a percentile in two sets of samples."""

    percentile: float

    unit = "x"

    def needs(self, *, judged: bool) -> int:
        return RATIO_NEEDS

    def _ratio(self, evidence: Evidence, before: Sequence[Sample], after: Sequence[Sample]) -> Verdict:
        below, above = values(before, self.metric), values(after, self.metric)
        if min(len(below), len(above)) < RATIO_NEEDS:
            why = f"only {len(below)} and {len(above)} answers, a ratio takes {RATIO_NEEDS} of each"
            return self._undecided(evidence, why)
        estimate = stats.ratio(above, below, self.percentile / 100)
        return self._decide(evidence, estimate, remark=self._uncertainty(estimate))

    def chance(self, verdict: Verdict, evidence: Evidence) -> float:
        return stats.chance_below(verdict.estimate, self.limit) if verdict.estimate else 0.5


@dataclass(frozen=True, kw_only=True)
class Degradation(_Ratio):
    """The ratio of a percentile to the one with fewer users, `compared_to`."""

    compared_to: int

    def levels(self) -> set[int]:
        return {self.compared_to}

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        if self.compared_to not in evidence.stages or self.compared_to == evidence.users:
            return None
        before = evidence.stages[self.compared_to].of_kinds(self.kinds)
        return self._ratio(evidence, before, samples)


@dataclass(frozen=True, kw_only=True)
class Drift(_Ratio):
    """The ratio of a percentile in the last quarter of the run to that in the first."""

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        quarter = evidence.stage.seconds / 4
        began = min(s.started for s in samples)
        first = [s for s in samples if s.started < began + quarter]
        last = [s for s in samples if s.started >= began + 3 * quarter]
        return self._ratio(evidence, first, last)


@dataclass(frozen=True, kw_only=True)
class MemoryGrowth(Objective):
    """The ratio of memory in the last quarter of the run to that in the first, where it grew most."""

    unit = "x"
    metrics = ("memory",)

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        growth: dict[str, float] = {}
        for name, readings in evidence.stage.memory.items():
            quarter = len(readings) // 4
            if quarter:
                first, last = (
                    median(mb for _, mb in part) for part in (readings[:quarter], readings[-quarter:])
                )
                growth[name] = last / first
        if not growth:
            return self._undecided(evidence, "the service runs elsewhere, or the run was too short")
        worst = max(growth, key=lambda name: growth[name])
        count = len(evidence.stage.memory[worst])
        verdict = self._decide(evidence, Estimate(growth[worst], None, None, count))
        verdict.why = "; ".join(filter(None, (f"{worst} grew most", verdict.why)))
        return verdict


@dataclass(frozen=True, kw_only=True)
class CacheHits(Objective):
    """The share of the tokens of each turn that the next one found in the prefix cache."""

    unit = "%"
    metrics = ("found_again",)
    timed = False

    def needs(self, *, judged: bool) -> int:
        return 10 if judged else 0  # turns of one session differ by more than a tenth

    def answers(self, samples: Sequence[Sample]) -> int:
        """The later turns; of engines that do not say what was in their cache, more would not help."""
        told = any(sample.cached_tokens is not None for sample in samples)
        return len(found_again(samples)) if told or not samples else len(samples)

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        found = found_again(evidence.stage.samples)
        if not found:
            return self._undecided(evidence, "no engine says how much of a prompt was in its cache")
        hits, before = map(sum, zip(*found, strict=True))
        return self._decide(evidence, Estimate(hits / before, None, None, len(found)))


def _good(samples: Sequence[Sample], evidence: Evidence) -> list[bool]:
    """Per request: a complete answer, within the promised times of its kind."""

    def within(sample: Sample) -> bool:
        limits = (o for o in evidence.promised if sample.kind in o.kinds)
        return sample.ok and all((getattr(sample, o.metric) or 0) <= o.limit for o in limits)

    return [within(sample) for sample in samples]


def _changed(samples: Sequence[Sample], evidence: Evidence) -> list[bool]:
    """Per complete answer to a canary: whether it begins differently from the one without load."""
    known = evidence.answers
    return [
        s.text.split()[:SAME_WORDS] != known[s.canary].split()[:SAME_WORDS]
        for s in samples
        if s.ok and s.canary in known
    ]


# Per request that counts, whether the metric is true of it.
SHARES: dict[str, Callable[[Sequence[Sample], Evidence], list[bool]]] = {
    "goodput": _good,
    "failed": lambda samples, _: [not s.ok and not s.refused for s in samples],
    "refused": lambda samples, _: [s.refused for s in samples],
    "garbage": lambda samples, _: [s.outcome == "garbage" for s in samples],
    "unhinted": lambda samples, _: [s.retry_after is None for s in samples if s.refused],
    "changed": _changed,
}


@dataclass(frozen=True, kw_only=True)
class Share(Objective):
    """The share of requests of which something is true."""

    unit = "%"
    metrics = tuple(SHARES)

    def _judge(self, samples: Sequence[Sample], evidence: Evidence) -> Verdict | None:
        hits = SHARES[self.metric](samples, evidence)
        if not hits:
            return None
        return self._decide(evidence, stats.share(sum(hits), len(hits)))

    def chance(self, verdict: Verdict, evidence: Evidence) -> float:
        """One that is met counts as kept: it would take many more answers to be sure of 1 %."""
        if verdict.verdict == "met" or not self.limit:
            return super().chance(verdict, evidence)
        hits = SHARES[self.metric](evidence.stage.of_kinds(self.kinds), evidence)
        if self.lower_bound:
            return stats.chance_of_at_most([not hit for hit in hits], 1 - self.limit)
        return stats.chance_of_at_most(hits, self.limit)
