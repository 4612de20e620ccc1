"""What one level of load gave, and how busy the load generator was meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.client import Sample

# Above these the figures would say more about the generator than about the service.
CPU_LIMIT = 0.85
LAG_LIMIT_MS = 25.0


@dataclass
class Health:
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
    """What one level of load gave."""

    users: int
    rate: float
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    health: Health = field(default_factory=Health)
    # By service: (seconds since the start, megabytes), where it was watched.
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As in `5 users`."""
        return "1 user" if self.users == 1 else f"{self.users} users"

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated a second over all users."""
        ok = [s for s in self.samples if s.ok]
        if not ok:
            return 0.0
        # Up to the last answer: requests that end after the stage's time count with their time.
        ended = max(s.started + (s.total or 0) / 1000 for s in ok)
        seconds = max(self.seconds, ended - min(s.started for s in ok))
        return float(sum(s.completion_tokens or s.events for s in ok) / seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "users": self.users,
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "generator": asdict(self.health) | {"saturated": self.health.saturated},
            "memory": self.memory,
            "samples": [sample.as_json() for sample in self.samples],
        }
