"""results.json: everything a run measured, in a form that later versions can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.judge import slo
from loadtests.judge.capacity import Capacity
from loadtests.judge.verdict import Verdict
from loadtests.measure.stage import Stage
from loadtests.report.machine import commit, hardware, models, versions
from loadtests.settings import Target

SCHEMA = 1


class ResultsError(Exception):
    """A results file cannot be used; the message says which one and why."""


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass
class Run:
    """One run of the load tests: what was measured, on what, and how it was judged."""

    suite: str
    seed: int
    profile: str
    models: dict[str, str]  # by alias
    versions: dict[str, str]
    machine: dict[str, Any]
    commit: str
    started: datetime = field(default_factory=now)
    finished: datetime = field(default_factory=now)
    notes: list[str] = field(default_factory=list)  # what readers of the figures should know
    stages: list[Stage] = field(default_factory=list)
    promises: list[Verdict] = field(default_factory=list)  # by the README's limits
    verdicts: list[Verdict] = field(default_factory=list)  # by the profile's limits
    # Only the benchmark measures these.
    starts: list[dict[str, Any]] = field(default_factory=list)
    overhead: list[dict[str, Any]] = field(default_factory=list)
    relay: list[dict[str, Any]] = field(default_factory=list)
    capacity: Capacity | None = None

    @classmethod
    def begin(cls, target: Target, suite: str, seed: int) -> Run:
        """A run against `target` that starts now."""
        return cls(suite, seed, target.profile, models(target), versions(target), hardware(), commit())

    def finish(
        self, objectives: slo.Objectives, answers: dict[str, str], stages: Sequence[Stage] | None = None
    ) -> None:
        """Judge the stages, or only `stages`; `answers` are the canaries' answers without load."""
        if judged := self.stages if stages is None else stages:
            promises = replace(slo.promises(), users=objectives.users)
            self.promises = slo.judge(judged, self.suite, promises, answers)
            self.verdicts = slo.judge(judged, self.suite, objectives, answers)
        self.finished = now()

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": self.finished.isoformat(timespec="seconds"),
            "commit": self.commit,
            "suite": self.suite,
            "seed": self.seed,
            "profile": self.profile,
            "machine": self.machine,
            "versions": self.versions,
            "models": self.models,
            "notes": self.notes,
            "promises": [verdict.as_json() for verdict in self.promises],
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
            "stages": [stage.as_json() for stage in self.stages],
            "starts": self.starts,
            "overhead": self.overhead,
            "relay": self.relay,
        } | ({"capacity": self.capacity.as_json()} if self.capacity else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        fields = {name: value for name, value in data.items() if name != "schema"}
        fields |= {name: datetime.fromisoformat(data[name]) for name in ("started", "finished")}
        fields |= {name: [Verdict.from_json(v) for v in data[name]] for name in ("promises", "verdicts")}
        fields["stages"] = [Stage.from_json(stage) for stage in data["stages"]]
        if "capacity" in data:
            fields["capacity"] = Capacity.from_json(data["capacity"])
        return cls(**fields)


def read(path: Path) -> Run:
    """A run from its results.json. Raises ResultsError when it is missing, not one, or of another schema."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise ResultsError(f"{path} is not a results.json of ./run bench")
    if data["schema"] != SCHEMA:
        raise ResultsError(f"{path} has schema {data['schema']}, this version reads {SCHEMA}: measure again")
    return Run.from_json(data)


def folder(root: Path, started: datetime) -> Path:
    """A new folder under `root`, named for the time."""
    path = root / f"{started:%Y%m%d-%H%M%S}"
    path.mkdir(parents=True, exist_ok=True)
    return path
