"""The results of one level of load, and how busy the load generator was meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from loadtests.measure.engines import EngineFigures
from loadtests.measure.sample import Sample

# Above these the figures would say more about the load generator than about the service.
CPU_LIMIT = 0.85
LAG_LIMIT_MS = 25.0


@dataclass
class GeneratorHealth:
    """How busy the load generator was."""

    cpu: float = 0.0  # share of one core
    machine_cpu: float = 0.0  # share of all cores, the service's included
    lag_p95_ms: float = 0.0  # how late its event loop woke up
    lag_max_ms: float = 0.0

    @property
    def saturated(self) -> bool:
        """Whether its measurements cannot be trusted."""
        return self.cpu > CPU_LIMIT or self.lag_p95_ms > LAG_LIMIT_MS


@dataclass
class Stage:
    """The results of one level of load."""

    users: int
    rate: float  # requests per second in open-loop mode, 0 in closed loop
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    health: GeneratorHealth = field(default_factory=GeneratorHealth)
    # By service, where it was watched: (seconds since the start, megabytes).
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    # By engine, where they were watched: what their own metrics say.
    engines: dict[str, EngineFigures] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As in `5 users`, or `2/s` in open-loop mode."""
        if self.rate:
            return f"{self.rate:g}/s"
        return "1 user" if self.users == 1 else f"{self.users} users"

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second, over all users."""
        ok = [s for s in self.samples if s.ok]
        if not ok:
            return 0.0
        # Requests still under way when the stage ended add their tokens, so they add their time as well.
        ended = max(s.started + (s.total or 0) / 1000 for s in ok)
        seconds = max(self.seconds, ended - min(s.started for s in ok))
        return float(sum(s.completion_tokens or s.events for s in ok) / seconds)

    def with_more(self, other: Stage) -> Stage:
        """Both as one stage, as if there had been no break between them."""
        gap = min((s.started for s in other.samples), default=0.0) - max(
            (s.started for s in self.samples), default=0.0
        )
        engines = self.engines | other.engines
        for name in self.engines.keys() & other.engines:
            engines[name] = self.engines[name].with_more(other.engines[name])
        return Stage(
            self.users,
            self.rate,
            self.seconds + other.seconds,
            self.samples + [replace(s, started=s.started - gap) for s in other.samples],
            max(self.health, other.health, key=lambda health: (health.saturated, health.cpu)),
            self.memory | other.memory,
            engines,
        )

    def of_kinds(self, kinds: tuple[str, ...]) -> list[Sample]:
        """The samples of these kinds; of all kinds when none is given."""
        return [s for s in self.samples if not kinds or s.kind in kinds]

    def as_json(self) -> dict[str, Any]:
        return {
            "users": self.users,
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "generator": asdict(self.health) | {"saturated": self.health.saturated},
            "memory": self.memory,
            "samples": [sample.as_json() for sample in self.samples],
        } | (
            {"engines": {name: asdict(figures) for name, figures in self.engines.items()}}
            if self.engines
            else {}
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Stage:
        health = {name: value for name, value in data["generator"].items() if name != "saturated"}
        samples = [Sample(**sample) for sample in data["samples"]]
        engines = {name: EngineFigures(**figures) for name, figures in data.get("engines", {}).items()}
        return cls(
            data["users"],
            data["rate"],
            data["seconds"],
            samples,
            GeneratorHealth(**health),
            data["memory"],
            engines,
        )
