"""What became slower or faster between two runs, beyond what chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.judge import stats
from loadtests.judge.stats import Estimate
from loadtests.measure.sample import values
from loadtests.report.results import Run

# Two runs of the same commit, hours apart, differ by up to this much, whatever the intervals say.
NOISE = 0.10


@dataclass(frozen=True)
class Change:
    """A figure in two runs; `slower` or `faster` only when the ratio's whole interval is beyond the noise."""

    name: str
    before: float
    after: float
    ratio: Estimate
    verdict: str


def changes(old: Run, new: Run) -> list[Change]:
    """Latencies at every level that both runs have, for each kind of request with enough answers in both."""
    found = []
    before = {stage.users: stage for stage in old.stages}
    for stage in new.stages:
        if stage.users not in before:
            continue
        earlier = before[stage.users]
        for kind in sorted({s.kind for s in stage.samples} & {s.kind for s in earlier.samples}):
            for metric, label in (("ttft", "TTFT"), ("total", "end to end")):
                was, now = (values(part.of_kinds((kind,)), metric) for part in (earlier, stage))
                if min(len(was), len(now)) < 10:
                    continue
                ratio = stats.ratio(now, was, 0.5)
                found.append(
                    Change(
                        f"{kind} {label}, median, {stage.label}",
                        stats.percentile(was, 0.5).value,
                        stats.percentile(now, 0.5).value,
                        ratio,
                        _verdict(ratio),
                    )
                )
    return found


def regressions(found: Sequence[Change]) -> list[Change]:
    """Those that became slower."""
    return [change for change in found if change.verdict == "slower"]


def _verdict(ratio: Estimate) -> str:
    if ratio.low is not None and ratio.low > 1 + NOISE:
        return "slower"
    if ratio.high is not None and ratio.high < 1 - NOISE:
        return "faster"
    return "same"
