"""How much load the service carries within its promises, and what breaks first beyond that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from loadtests.judge.verdict import Verdict
from loadtests.measure.engines import EngineFigures
from loadtests.measure.sample import values
from loadtests.measure.stage import Stage

FULL = 0.9  # of the KV cache: what is left is too little for the next request
BEFORE_THE_FIRST_TOKEN = ("ttft", "first_content", "queue_wait")


@dataclass(frozen=True)
class Level:
    """One level of load, as it was measured and judged. Times are means in milliseconds."""

    load: float  # users, or requests per second
    seconds: float
    answers: int
    chance: float  # that every objective is kept
    queue_ms: float  # in the router's queue
    tokens: float  # of an answer
    engines: dict[str, EngineFigures]
    verdicts: list[Verdict]
    weakest: str = ""  # the objective that is least likely kept

    @classmethod
    def of(cls, load: float, stage: Stage, judged: Sequence[tuple[Verdict, float]]) -> Level:
        """The level of a stage; `judged` are the verdicts, each with the chance that it is `met`."""
        answers = [sample for sample in stage.samples if sample.ok]
        weakest, chance = min(judged, key=lambda each: each[1])
        return cls(
            load,
            stage.seconds,
            len(answers),
            chance,
            fmean(values(answers, "queue_wait") or [0.0]),
            fmean([sample.completion_tokens or sample.events for sample in answers] or [0.0]),
            stage.engines,
            [verdict for verdict, _ in judged],
            weakest.name,
        )

    @property
    def probability(self) -> str:
        """The chance, as people read it."""
        return "> 99 %" if self.chance > 0.99 else "< 1 %" if self.chance < 0.01 else f"{self.chance:.0%}"

    def __str__(self) -> str:
        weakest = self.weakest_verdict
        return (
            f"all kept with a probability of {self.probability}; {self.weakest}: {weakest.measured}, "
            f"limit {weakest.bound}"
        )

    @property
    def weakest_verdict(self) -> Verdict:
        """That of the weakest objective."""
        return next(verdict for verdict in self.verdicts if verdict.name == self.weakest)

    def times(self) -> dict[tuple[str, str], float]:
        """What an answer spends its time on, by cause and engine (empty for the router)."""
        found = {("queue", ""): self.queue_ms}
        for name, figures in self.engines.items():
            found["queue", name] = figures.queue_ms
            found["reading prompts", name] = figures.reading_ms
            found["step time", name] = figures.step_ms * self.tokens
        return found

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Level:
        engines = {name: EngineFigures(**figures) for name, figures in data["engines"].items()}
        return cls(
            **data | {"engines": engines, "verdicts": [Verdict.from_json(v) for v in data["verdicts"]]}
        )


@dataclass(frozen=True)
class Bottleneck:
    """What breaks first: the objective, and the part of an answer's time that grew most, in milliseconds."""

    load: float  # where it is missed
    objective: str
    cause: str = ""  # queue, reading prompts, step time or KV cache; empty when no engine says
    engine: str = ""
    before_ms: float = 0.0  # at the highest level that was kept
    ms: float = 0.0

    def __str__(self) -> str:
        if not self.cause:
            return f"{self.objective} (why is not known: no engine's metrics can be read from here)"
        where = f" of {self.engine}" if self.engine else ""
        return f"{self.objective} ({self.cause}{where}: {self.before_ms:.0f} -> {self.ms:.0f} ms an answer)"


def bottleneck(levels: Sequence[Level], capacity: float) -> Bottleneck | None:
    """What breaks first, at the first level above the capacity, against the last one that was kept.

    None when no level above was measured. `levels` are in ascending order.
    """
    above = [level for level in levels if level.load > capacity]
    if not above:
        return None
    # Rather one that was clearly missed than one at the limit.
    missed = next((level for level in above if level.chance < 0.5), above[0])
    below = [level for level in levels if level.load < missed.load]
    before = next((level for level in reversed(below) if level.chance >= 0.5), below[-1] if below else None)
    metric = missed.weakest_verdict.metric
    if not missed.engines and not missed.queue_ms:
        return Bottleneck(missed.load, missed.weakest)
    was = before.times() if before else {}
    growth = {
        part: ms - was.get(part, 0.0)
        for part, ms in missed.times().items()
        if part[0] != "step time" or metric not in BEFORE_THE_FIRST_TOKEN
    }
    part = max(growth, key=lambda part: growth[part])
    cause, engine = part
    full = {name for name, each in missed.engines.items() if each.preemptions or each.kv_cache >= FULL}
    if cause == "queue" and full and (engine or not growth["queue", ""]):
        cause, engine = "KV cache", engine if engine in full else min(full)
    return Bottleneck(missed.load, missed.weakest, cause, engine, was.get(part, 0.0), missed.times()[part])


@dataclass
class Capacity:
    """The highest load at which every objective is kept, in `unit`, with its 95 % interval."""

    unit: str  # users, or requests per second
    wanted: float  # the load that the exit status is about
    value: float
    low: float
    high: float | None  # None: no level was missed, so there is no upper bound
    levels: list[Level] = field(default_factory=list)
    breaks: Bottleneck | None = None
    stopped: str = ""  # why the search ended before it knew

    def __str__(self) -> str:
        """As in `9 users (95 % interval 8-9)`."""
        if not self.low and self.high is None:
            return f"not known, in {self.unit}"
        if self.high is None:
            return f"at least {self.low:g} {self.unit} (95 % interval {self.low:g} and more)"
        return f"{self.value:g} {self.unit} (95 % interval {self.low:g}-{self.high:g})"

    @property
    def exit_status(self) -> int:
        """0 when the wanted load is kept, 1 when it is not, 2 when that is not known."""
        if self.low >= self.wanted:
            return 0
        return 1 if self.high is not None and self.high < self.wanted else 2

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Capacity:
        breaks = Bottleneck(**data["breaks"]) if data["breaks"] else None
        levels = [Level.from_json(level) for level in data["levels"]]
        return cls(**data | {"levels": levels, "breaks": breaks})
