"""Runs stages of load with Locust, and checks that the load generator itself keeps up."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import gevent
import psutil
from locust import events
from locust.env import Environment

from loadtests.measure.engines import EngineWatch
from loadtests.measure.memory import MemoryWatch
from loadtests.measure.power import PowerWatch
from loadtests.measure.sample import Sample
from loadtests.measure.stage import GeneratorHealth, Stage
from loadtests.measure.users import Developer, LoadTest
from loadtests.workload.material import CANARIES
from loadtests.workload.suites import RequestGenerator

TICK = 0.02


class GeneratorWatch:
    """Measures the load generator's CPU and event-loop lag between start() and stop()."""

    def start(self) -> None:
        """Begin measuring, in the background."""
        self._lags: list[float] = []
        self._began, self._cpu = time.monotonic(), time.process_time()
        psutil.cpu_percent()
        self._greenlet = gevent.spawn(self._tick)

    def _tick(self) -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(TICK)
            self._lags.append((time.monotonic() - before - TICK) * 1000)

    def stop(self) -> GeneratorHealth:
        """End measuring; returns the health since start()."""
        self._greenlet.kill()
        elapsed = max(1e-9, time.monotonic() - self._began)
        lags = sorted(self._lags) or [0.0]
        return GeneratorHealth(
            (time.process_time() - self._cpu) / elapsed,
            psutil.cpu_percent() / 100,
            max(0.0, lags[int(0.95 * (len(lags) - 1))]),
            max(0.0, lags[-1]),
        )


def warm_up(test: LoadTest) -> dict[str, str]:
    """Ask every canary twice, without load: warms up the engines, and gives the answers to compare with.

    Returns the answers by canary. One that differs between the two times is left out, as it proves nothing.
    Raises ConnectionError with the reason when the service does not answer.
    """
    generator, connection = RequestGenerator(test.workload, -1), test.connect()
    answers: dict[str, str] = {}
    for name in CANARIES:
        first, second = (connection.measure(generator.canary(name)) for _ in range(2))
        for sample in (first, second):
            if not sample.ok:
                raise ConnectionError(f"a warm-up request failed: {sample.outcome} {sample.detail}")
        if first.text == second.text:
            answers[name] = first.text
    for alias in test.workload.aliases:
        connection.measure(generator.greeting(alias))
    connection.close()
    return answers


def run_stage(
    test: LoadTest,
    users: int,
    seconds: float,
    *,
    enough: Callable[[Sequence[Sample]], bool] = lambda _: True,
    longest: float = 0.0,
    ramp: float = 3.0,
    progress: Callable[[str], None] | None = None,
) -> Stage:
    """Let `users` work for `seconds`, then on until there is `enough`, for `longest` seconds at most.

    Samples from the first `ramp` seconds, while users start one after the other, are left out. Requests
    under way at the end are waited for: dropping them would drop the slow ones.
    """
    test.samples, test.users = [], users
    environment = Environment(user_classes=[Developer], events=events, stop_timeout=test.timeout)
    environment.loadtest = test  # type: ignore[attr-defined]
    runner = environment.create_local_runner()
    watch, memory, engines = GeneratorWatch(), MemoryWatch(test.watched), EngineWatch(test.engines)
    power = PowerWatch() if test.power else None
    if power:
        power.start()
    engines.start()
    watch.start()
    memory.start()
    began = time.monotonic()
    runner.start(users, spawn_rate=max(1.0, users / ramp) if ramp else users)
    measured = began + ramp
    while True:
        gevent.sleep(0.5)
        elapsed = time.monotonic() - measured
        if elapsed >= seconds and (
            elapsed >= longest or enough([s for s in test.samples if s.started >= measured])
        ):
            break
        if progress:
            progress(_line(test, elapsed, seconds))
    ended = time.monotonic()
    watts = power.stop() if power else None
    runner.stop()
    test.in_flight.join(timeout=test.timeout)
    health, readings = watch.stop(), memory.stop()
    runner.quit()
    kept = [s for s in test.samples if measured <= s.started <= ended]
    if progress:
        progress("")
    return Stage(users, test.rate, ended - measured, kept, health, readings, engines.stop(), watts)


def _line(test: LoadTest, elapsed: float, seconds: float) -> str:
    outcomes = Counter(sample.outcome for sample in test.samples)
    waits = sorted(s.ttft for s in test.samples[-100:] if s.ok and s.ttft is not None)
    median = f", recent median TTFT {waits[len(waits) // 2]:.0f} ms" if waits else ""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())) or "no answer yet"
    suite, users = test.workload.suite, test.users
    load = f"{test.rate:g} requests per second" if test.rate else f"{users} users"
    return f"{suite}, {load}, {max(0, elapsed):.0f} s of at least {seconds:.0f}: {counts}{median}"


class Progress:
    """A line on stderr that is rewritten on a terminal; elsewhere, a new line every ten seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Show `text`; an empty one ends the line."""
        if self._terminal:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
        elif text and time.monotonic() - self._last >= 10:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Show `text`, with the time, in a line that stays."""
        self("")
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)
