"""The SLO gate: reads slo.toml and holds measured stages against its objectives."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import settings
from loadtests.judge.objectives import (
    TIMES,
    CacheHits,
    Degradation,
    Drift,
    Evidence,
    MemoryGrowth,
    Objective,
    Percentile,
    Share,
)
from loadtests.judge.verdict import Verdict
from loadtests.measure.sample import Sample
from loadtests.measure.stage import Stage

TEXT = ("garbage", "changed")  # metrics
DEFAULT = Path(__file__).parents[1] / "slo.toml"


class ObjectiveError(Exception):
    """slo.toml, or another file in its place, cannot be used; the message says why."""


@dataclass(frozen=True)
class Objectives:
    """slo.toml as one profile sees it, and the number of users it is judged at."""

    users: int
    items: tuple[Objective, ...]

    def of(self, suite: str) -> list[Objective]:
        """The objectives of a suite."""
        return [objective for objective in self.items if objective.applies_to(suite)]

    def promises(self) -> Objectives:
        """Only those that the README promises."""
        return Objectives(self.users, tuple(objective for objective in self.items if objective.promise))

    def without_text(self) -> Objectives:
        """Without those that look at the text of answers."""
        return Objectives(self.users, tuple(each for each in self.items if each.metric not in TEXT))

    def levels(self) -> list[int]:
        """The numbers of users that are judged and compared with."""
        return sorted({self.users}.union(*(objective.levels() for objective in self.items)))


def load(profile: str, path: Path = DEFAULT) -> Objectives:
    """Read the objectives for `profile`.

    Raises ObjectiveError naming the objective that is wrong, and SettingError when limits depend on the speed
    of this CPU and it has not been measured.
    """
    try:
        data = tomllib.loads(path.read_text())
        users, entries = data["users"], data["objective"]
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ObjectiveError(f"{path}: {error}") from error
    except KeyError as error:
        raise ObjectiveError(f"{path}: {error} is missing") from error
    items = []
    for entry in entries:
        try:
            items.append(_objective(_for_profile(entry, profile)))
        except (TypeError, ValueError) as error:
            raise ObjectiveError(f"{path.name}: objective {entry.get('name')!r}: {error}") from error
    return Objectives(users, tuple(items))


def promises(path: Path = DEFAULT) -> Objectives:
    """What the README promises, whatever the machine."""
    return load("", path).promises()


def _for_profile(entry: dict[str, Any], profile: str) -> dict[str, Any]:
    """An entry of slo.toml with the limit that the profile is held to."""
    own: dict[str, Any] = entry.get("profile", {}).get(profile, {})
    if "steps" in own:
        step_ms, tokens_per_second = settings.measured_cpu()
        own = {"limit": own["steps"] * step_ms + own["prompt_tokens"] / tokens_per_second * 1000}
    return {name: value for name, value in entry.items() if name != "profile"} | own


def _objective(entry: dict[str, Any]) -> Objective:
    """The objective of the kind that the entry describes.

    Raises TypeError for a missing or unknown key, ValueError for an unknown metric.
    """
    entry = entry | {name: tuple(entry.get(name, ())) for name in ("kinds", "suites")}
    match entry:
        case {"metric": "memory", "drift": True, **rest}:
            return MemoryGrowth(metric="memory", **rest)
        case {"drift": True, **rest}:
            return Drift(**rest)
        case {"compared_to": users, **rest}:
            return Degradation(compared_to=users, **rest)
        case {"percentile": percentile, **rest}:
            return Percentile(percentile=percentile, **rest)
        case {"metric": "found_again", "at_least": limit, **rest}:
            return CacheHits(metric="found_again", limit=limit, lower_bound=True, **rest)
        case {"at_least": limit, **rest}:
            return Share(limit=limit, lower_bound=True, **rest)
    return Share(**entry)


def judge(
    stages: Sequence[Stage], suite: str, objectives: Objectives, answers: dict[str, str]
) -> list[Verdict]:
    """A verdict for each objective of the suite; `answers` are the canaries' answers without load."""
    evidence = _evidence(stages, objectives, answers)
    verdicts = (objective.judge(evidence) for objective in objectives.of(suite))
    return [verdict for verdict in verdicts if verdict]


def chances(
    stages: Sequence[Stage], suite: str, objectives: Objectives, answers: dict[str, str]
) -> list[tuple[Verdict, float]]:
    """The verdicts of `judge`, each with the probability (0-1) that the objective is kept at that level."""
    evidence = _evidence(stages, objectives, answers)
    judged = ((each, each.judge(evidence)) for each in objectives.of(suite))
    return [(verdict, each.chance(verdict, evidence)) for each, verdict in judged if verdict]


def _evidence(stages: Sequence[Stage], objectives: Objectives, answers: dict[str, str]) -> Evidence:
    by_users = {stage.users: stage for stage in stages}
    users = objectives.users if objectives.users in by_users else max(by_users)
    latencies = [o for o in objectives.items if o.promise and isinstance(o, Percentile) and o.metric in TIMES]
    return Evidence(by_users, users, answers, latencies)


def enough(objectives: Objectives, suite: str, users: int, samples: Sequence[Sample]) -> bool:
    """Whether a stage with `users` users has the answers that each objective of the suite needs."""
    sent = {sample.kind for sample in samples}
    return all(
        objective.answers(samples) >= objective.needs(judged=users >= objectives.users)
        for objective in objectives.of(suite)
        if not objective.kinds or sent & set(objective.kinds)  # what is not sent is not judged
    )
