"""How an objective came out, as reports and results.json show it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from loadtests.judge.stats import Estimate

NO_VERDICT = "no verdict"


@dataclass
class Verdict:
    """How an objective came out: `met`, `missed`, or `no verdict`, with the reason in `why`."""

    name: str
    promise: bool
    metric: str
    unit: str  # ms, % (of a share) or x (a ratio)
    limit: float
    lower_bound: bool  # whether the limit is a minimum
    verdict: str
    why: str
    users: int
    estimate: Estimate | None = None

    @property
    def measured(self) -> str:
        """The estimate in its unit, with its interval; a dash where nothing was measured."""
        if self.estimate is None:
            return "–"
        text = figure(self.estimate.value, self.unit)
        if self.estimate.low is None or self.estimate.high is None:
            return text
        low, high = (figure(value, self.unit).split()[0] for value in (self.estimate.low, self.estimate.high))
        return f"{text} ({low}-{high})"

    @property
    def bound(self) -> str:
        """The limit in its unit, as in `≤ 500 ms`."""
        return f"{'≥' if self.lower_bound else '≤'} {figure(self.limit, self.unit)}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        return cls(**data | {"estimate": Estimate(**data["estimate"]) if data["estimate"] else None})


def figure(value: float, unit: str) -> str:
    """A value in its unit: ms, % (of a share) or x (a ratio)."""
    return f"{value:.2f} x" if unit == "x" else f"{value:.1%}" if unit == "%" else f"{value:.0f} ms"


def exit_status(verdicts: Collection[Verdict]) -> int:
    """0 all met, 1 one missed, 2 none missed but some without a verdict."""
    states = {verdict.verdict for verdict in verdicts}
    return 1 if "missed" in states else 2 if NO_VERDICT in states or not states else 0


def outlook(promises: Collection[Verdict], profile: str) -> str:
    """Whether a service with this profile will keep its promises on this machine, in a sentence."""
    for state, what in (("missed", "will miss"), (NO_VERDICT, "may keep or miss")):
        if names := [promise.name for promise in promises if promise.verdict == state]:
            return f"With {profile}, this machine {what}: {'; '.join(names)}."
    return f"With {profile}, this machine will keep every promise."
