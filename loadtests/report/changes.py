"""What became slower or faster between two results files, beyond what chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests import results, slo, stats
from loadtests.stats import Estimate

# Two runs of the same commit differ by so much between one hour and the next, whatever the intervals say.
NOISE = 0.10


@dataclass(frozen=True)
class Change:
    """One figure then and now. `slower` and `faster` only when the whole interval is beyond the noise."""

    name: str
    before: float
    after: float
    ratio: Estimate
    verdict: str


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Latencies at every level that both runs have, for each kind of request with enough answers in both."""
    found = []
    before = {stage.users: stage for stage in results.stages_of(old)}
    for stage in results.stages_of(new):
        if stage.users not in before:
            continue
        earlier = before[stage.users]
        for kind in sorted({s.kind for s in stage.samples} & {s.kind for s in earlier.samples}):
            for metric, label in (("ttft", "TTFT"), ("total", "end to end")):
                was = slo.values([s for s in earlier.samples if s.kind == kind], metric)
                now = slo.values([s for s in stage.samples if s.kind == kind], metric)
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


def table(found: Sequence[Change]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The changes as a table's head and rows."""
    rows = [
        (
            change.name,
            f"{change.before:.0f} ms",
            f"{change.after:.0f} ms",
            str(change.ratio),
            change.verdict.upper() if change.verdict == "slower" else change.verdict,
        )
        for change in found
    ]
    return ("", "then", "now", "ratio (95 % interval)", "beyond noise"), rows
