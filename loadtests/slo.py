"""The SLO gate: holds measured samples against slo.toml, and says how sure it is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loadtests import settings, stats
from loadtests.client import Sample
from loadtests.stage import Stage
from loadtests.stats import Estimate

DEFAULT = Path(__file__).with_name("slo.toml")
TIMES = ("ttft", "first_content", "total", "itl", "queue_wait")
REFUSALS = ("rejected", "unavailable")


class ObjectiveError(Exception):
    """slo.toml, or another file in its place, cannot be used; the message says why."""


@dataclass(frozen=True)
class Objective:
    """One line of slo.toml; see there."""

    name: str
    metric: str
    limit: float
    promise: bool = False
    percentile: float | None = None
    lower_bound: bool = False
    compared_to: int | None = None
    drift: bool = False
    kinds: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """ms, % (of a share) or x (a ratio)."""
        if self.compared_to is not None or self.drift:
            return "x"
        return "ms" if self.percentile is not None else "%"


@dataclass(frozen=True)
class Objectives:
    """slo.toml as one profile sees it, and the number of users it is judged at."""

    users: int
    items: tuple[Objective, ...]


@dataclass
class Verdict:
    """How one objective came out: `met`, `missed`, or `no verdict` with the reason in `why`."""

    objective: Objective
    verdict: str
    why: str
    users: int = 0
    estimate: Estimate | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.objective.name,
            "promise": self.objective.promise,
            "metric": self.objective.metric,
            "unit": self.objective.unit,
            "limit": self.objective.limit,
            "lower_bound": self.objective.lower_bound,
            "verdict": self.verdict,
            "why": self.why,
            "users": self.users,
            "estimate": asdict(self.estimate) if self.estimate else None,
        }


def load(profile: str, path: Path = DEFAULT) -> Objectives:
    """Read the objectives for `profile`. Raises ObjectiveError naming the objective that is wrong, and
    SettingError where limits depend on what this CPU does and that is not known.
    """
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ObjectiveError(f"{path}: {error}") from error
    items = []
    for entry in data["objective"]:
        entry = dict(entry)
        own = entry.pop("profile", {}).get(profile, {})
        if "steps" in own:
            step_ms, tokens_per_second = settings.measured_cpu()
            own = {"limit": own["steps"] * step_ms + own["prompt_tokens"] / tokens_per_second * 1000}
        entry |= own
        if "at_least" in entry:
            entry |= {"limit": entry.pop("at_least"), "lower_bound": True}
        for name in ("kinds", "suites"):
            entry[name] = tuple(entry.get(name, ()))
        try:
            items.append(Objective(**entry))
        except TypeError as error:
            raise ObjectiveError(f"{path.name}: objective {entry.get('name')!r}: {error}") from error
    return Objectives(data["users"], tuple(items))


def promises(path: Path = DEFAULT) -> Objectives:
    """What the README promises, whatever the machine."""
    every = load("", path)
    return Objectives(every.users, tuple(objective for objective in every.items if objective.promise))


def values(samples: Sequence[Sample], metric: str) -> list[float]:
    """The times of a metric, in milliseconds: of whole answers, or for `refusal` of refusals."""
    if metric == "refusal":
        return [s.total for s in samples if s.outcome in REFUSALS and s.total is not None]
    if metric == "itl":
        return [gap for s in samples if s.ok for gap in s.itl]
    return [value for s in samples if s.ok and (value := getattr(s, metric)) is not None]


def judge(
    stages: Sequence[Stage], suite: str, objectives: Objectives, answers: dict[str, str]
) -> list[Verdict]:
    """A verdict for each objective of the suite; `answers` are the canaries' answers without load."""
    by_users = {stage.users: stage for stage in stages}
    level = objectives.users if objectives.users in by_users else max(by_users)
    verdicts = []
    for objective in objectives.items:
        if objective.suites and suite not in objective.suites:
            continue
        verdict = _judge_one(objective, by_users, level, objectives, answers)
        if verdict:
            verdicts.append(verdict)
    return verdicts


RATIO_NEEDS = 20


def enough(objectives: Objectives, suite: str, users: int, samples: Sequence[Sample]) -> bool:
    """Whether a stage with so many users has what each objective of the suite needs for a verdict."""
    for objective in objectives.items:
        if objective.percentile is None or (objective.suites and suite not in objective.suites):
            continue
        have = sum(s.ok for s in _of_kinds(samples, objective))
        needed = stats.needed_for(objective.percentile / 100)
        if users < objectives.users or objective.compared_to is not None or objective.drift:
            needed = RATIO_NEEDS  # lower levels are there to be compared with
        if objective.metric in TIMES and have < needed:
            return False
    return True


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """0 all met, 1 one missed, 2 none missed but some without verdict."""
    states = {verdict.verdict for verdict in verdicts}
    return 1 if "missed" in states else 2 if "no verdict" in states or not states else 0


def _judge_one(
    objective: Objective,
    by_users: dict[int, Stage],
    level: int,
    objectives: Objectives,
    answers: dict[str, str],
) -> Verdict | None:
    stage = by_users[level]
    samples = _of_kinds(stage.samples, objective)
    if not samples:
        return None if objective.kinds else _undecided(objective, level, "no requests were made")
    busy = [s for s in (stage, by_users.get(objective.compared_to or level)) if s and s.health.saturated]
    if busy:
        health = busy[0].health
        return _undecided(
            objective,
            level,
            f"the load generator itself was saturated ({health.cpu:.0%} of a core, woke up "
            f"{health.lag_p95_ms:.0f} ms late): use more workers or a machine of its own",
        )
    if objective.compared_to is not None:
        if objective.compared_to not in by_users or objective.compared_to == level:
            return None
        before = _of_kinds(by_users[objective.compared_to].samples, objective)
        return _ratio(objective, level, before, samples)
    if objective.metric == "memory":
        return _memory(objective, level, stage)
    if objective.drift:
        quarter = stage.seconds / 4
        began = min(s.started for s in samples)
        first = [s for s in samples if s.started < began + quarter]
        last = [s for s in samples if s.started >= began + 3 * quarter]
        return _ratio(objective, level, first, last)
    if objective.percentile is not None:
        return _percentile(objective, level, samples)
    hits = _SHARES[objective.metric](samples, objectives, answers)
    if not hits:
        return None
    return _decide(objective, level, stats.share(sum(hits), len(hits)), True)


def _of_kinds(samples: Sequence[Sample], objective: Objective) -> list[Sample]:
    return [s for s in samples if not objective.kinds or s.kind in objective.kinds]


def _undecided(objective: Objective, level: int, why: str, estimate: Estimate | None = None) -> Verdict:
    return Verdict(objective, "no verdict", why, level, estimate)


def _percentile(objective: Objective, level: int, samples: Sequence[Sample]) -> Verdict | None:
    times = values(samples, objective.metric)
    if not times:
        # Nothing was refused: then there is nothing to be slow about.
        return None if objective.metric == "refusal" else _undecided(objective, level, "no whole answer came")
    assert objective.percentile is not None  # noqa: S101 - the caller's branch
    quantile = objective.percentile / 100
    estimate = stats.percentile(times, quantile)
    needed = stats.needed_for(quantile)
    clear_miss = estimate.low is not None and estimate.low > objective.limit
    if estimate.count < needed and not clear_miss:
        return _undecided(
            objective,
            level,
            f"only {estimate.count} answers, a p{objective.percentile:g} takes {needed}",
            estimate,
        )
    return _decide(objective, level, estimate, estimate.certain)


def _ratio(objective: Objective, level: int, before: Sequence[Sample], after: Sequence[Sample]) -> Verdict:
    above, below = values(after, objective.metric), values(before, objective.metric)
    quantile = (objective.percentile or 95) / 100
    if min(len(above), len(below)) < RATIO_NEEDS:
        found = f"only {len(below)} and {len(above)} answers"
        return _undecided(objective, level, f"{found}, a ratio takes {RATIO_NEEDS} of each")
    return _decide(objective, level, stats.ratio(above, below, quantile), True)


def _memory(objective: Objective, level: int, stage: Stage) -> Verdict:
    """Last quarter over first quarter, of the service that grew most."""
    growth: dict[str, float] = {}
    for name, seen in stage.memory.items():
        quarter = len(seen) // 4
        if quarter:
            first, last = (median(mb for _, mb in part) for part in (seen[:quarter], seen[-quarter:]))
            growth[name] = last / first
    if not growth:
        return _undecided(objective, level, "the service runs elsewhere, or the run was too short")
    worst = max(growth, key=lambda name: growth[name])
    count = len(stage.memory[worst])
    verdict = _decide(objective, level, Estimate(growth[worst], None, None, count), False)
    verdict.why = f"{worst} grew most" + (f"; {verdict.why}" if verdict.why else "")
    return verdict


def _decide(objective: Objective, level: int, estimate: Estimate, certain: bool) -> Verdict:
    over = estimate.value < objective.limit if objective.lower_bound else estimate.value > objective.limit
    why = ""
    if over and objective.limit:
        difference = abs(estimate.value - objective.limit) / objective.limit
        why = f"{'below' if objective.lower_bound else 'over'} the limit by {difference:.0%}"
    elif over:
        why = "none is allowed"
    interval = (estimate.low, estimate.high) if certain and objective.percentile else (None, None)
    if interval[0] is not None and interval[1] is not None and interval[0] <= objective.limit <= interval[1]:
        why += ("; " if why else "") + "within the measurement's uncertainty of the limit"
    return Verdict(objective, "missed" if over else "met", why, level, estimate)


def _good(samples: Sequence[Sample], objectives: Objectives, _: dict[str, str]) -> list[bool]:
    """Per request: a whole answer, within each promised time of its kind."""
    limits = [o for o in objectives.items if o.promise and o.compared_to is None and o.metric in TIMES]

    def within(sample: Sample) -> bool:
        return sample.ok and all(
            (getattr(sample, o.metric) or 0) <= o.limit for o in limits if sample.kind in o.kinds
        )

    return [within(sample) for sample in samples]


def _changed(samples: Sequence[Sample], _: Objectives, answers: dict[str, str]) -> list[bool]:
    return [s.text != answers[s.canary] for s in samples if s.ok and s.canary in answers]


_SHARES: dict[str, Callable[[Sequence[Sample], Objectives, dict[str, str]], list[bool]]] = {
    "goodput": _good,
    "failed": lambda samples, *_: [not s.ok and s.outcome not in REFUSALS for s in samples],
    "refused": lambda samples, *_: [s.outcome in REFUSALS for s in samples],
    "garbage": lambda samples, *_: [s.outcome == "garbage" for s in samples],
    "unhinted": lambda samples, *_: [s.retry_after is None for s in samples if s.outcome in REFUSALS],
    "changed": _changed,
}


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as lines of text for a terminal."""
    rows = [("", "objective", "users", "measured (95 % interval)", "limit", "n")]
    for verdict in verdicts:
        estimate, objective = verdict.estimate, verdict.objective
        measured = described(estimate, objective.unit) if estimate else "-"
        limit = ("≥ " if objective.lower_bound else "≤ ") + figure(objective.limit, objective.unit)
        mark = {"met": "met", "missed": "MISSED", "no verdict": "no verdict"}[verdict.verdict]
        name = objective.name + (f" [{verdict.why}]" if verdict.why else "")
        rows.append(
            (mark, name, str(verdict.users), measured, limit, str(estimate.count) if estimate else "0")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def figure(value: float, unit: str) -> str:
    """A value in its unit: ms, % (of a share) or x (a ratio)."""
    return f"{value:.2f} x" if unit == "x" else f"{value:.1%}" if unit == "%" else f"{value:.0f} ms"


def described(estimate: Estimate, unit: str) -> str:
    """An estimate in its unit, with its interval."""
    text = figure(estimate.value, unit)
    if estimate.low is None or estimate.high is None:
        return text
    low, high = (figure(value, unit).split()[0] for value in (estimate.low, estimate.high))
    return f"{text} ({low}-{high})"
