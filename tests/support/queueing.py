"""The mock engine's timing without the engine: how long requests wait, computed instead of measured."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from random import Random

from loadtests.judge import slo
from loadtests.judge.capacity import Capacity
from loadtests.judge.search import Search, rates, seek, users
from loadtests.judge.slo import Objectives
from loadtests.judge.verdict import Verdict
from loadtests.measure.sample import Sample
from loadtests.measure.stage import Stage

SECONDS = 20.0
Range = tuple[float, float]


@dataclass(frozen=True)
class QueueModel:
    """An engine that has so many slots and reads one prompt after the other, and its users; in seconds."""

    slots: int
    read: Range  # a prompt: its tokens / the reading speed
    answer: Range  # from the first token to the last: tokens * step time
    pause: Range  # between an answer and the user's next request

    def samples(self, users: int, count: int, rng: Random, *, rate: float = 0.0) -> list[Sample]:
        """`count` answers, without those of the ramp; in an open loop, at `rate` requests per second."""
        ramp = 10 * users
        arrivals = [] if rate else [rng.uniform(*self.pause) for _ in range(users)]
        if rate:
            now = 0.0
            for _ in range(count + ramp):
                arrivals.append(now := now + rng.expovariate(rate))
        heapq.heapify(arrivals)
        free, reader = [0.0] * self.slots, 0.0
        found: list[Sample] = []
        while arrivals and len(found) < count + ramp:
            arrived = heapq.heappop(arrivals)
            first = reader = max(arrived, heapq.heappop(free), reader) + rng.uniform(*self.read)
            ended = first + rng.uniform(*self.answer)
            heapq.heappush(free, ended)
            if not rate:
                heapq.heappush(arrivals, ended + rng.uniform(*self.pause))
            sample = Sample("completion", arrived, users=users, completion_tokens=75)
            sample.ttft, sample.total = (first - arrived) * 1000, (ended - arrived) * 1000
            found.append(sample)
        return found[ramp:]

    def late(self, limit: float, users: int, *, rate: float = 0.0) -> float:
        """The share of answers with a TTFT over `limit` ms, by more answers than any search sees."""
        times = [s.ttft or 0.0 for s in self.samples(users, 50_000, Random(users), rate=rate)]
        return sum(time > limit for time in times) / len(times)

    def capacity(self, limit: float) -> int:
        """The most users whose p95 TTFT is at most `limit` milliseconds."""
        return bisect_left(range(1, 200), True, key=lambda users: self.late(limit, users) > 0.05)


def objectives(folder: Path, *, limit: float, users: int) -> Path:
    """A file of objectives: the p95 TTFT of completions, in milliseconds, and no failures."""
    path = folder / "slo.toml"
    path.write_text(
        f"users = {users}\n"
        '[[objective]]\nname = "p95 time to first token"\npromise = true\nmetric = "ttft"\npercentile = 95\n'
        f'limit = {limit}\nkinds = ["completion"]\n'
        '[[objective]]\nname = "failed requests"\nmetric = "failed"\nlimit = 0.01\n'
    )
    return path


def search(
    model: QueueModel, promised: Objectives, seed: str, *, budget: float = 1800, rate: float = 0.0
) -> Capacity:
    """A search that measures the model instead of a service, for `budget` of the model's seconds."""
    rng, spent = Random(seed), 0.0

    def measure(load: float, left: float) -> Stage:
        nonlocal spent
        count = 1 if rate else int(load)
        found = model.samples(count, max(20, int(load * SECONDS / 3)), rng, rate=load if rate else 0.0)
        spent += SECONDS
        return Stage(count, load if rate else 0.0, SECONDS, found)

    def judge(load: float, stage: Stage) -> list[tuple[Verdict, float]]:
        return slo.chances([stage], "completion", promised, {})

    levels = Search(rates(rate) if rate else users(), rate or float(promised.users))
    found, _ = seek(levels, "users", measure, judge, ends=budget, seconds=SECONDS, clock=lambda: spent)
    return found
