"""The Locust user: a developer who works through a suite, and what all of them share."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import gevent
from gevent.pool import Pool
from locust import User, task

from loadtests.measure.connection import Connection
from loadtests.measure.sample import Sample
from loadtests.workload.request import LoadRequest
from loadtests.workload.suites import RequestGenerator, Workload


@dataclass
class LoadTest:
    """What the users of a load test share: what they send, where to, and the samples they collect."""

    url: str
    key: str
    workload: Workload
    rate: float = 0.0  # requests per second over all users (open loop); 0 is closed loop
    timeout: float = 300.0
    users: int = 1
    # Services, by name and URL, whose memory is watched meanwhile.
    watched: dict[str, str] = field(default_factory=dict)
    # Engines, by name and URL, whose metrics are read meanwhile.
    engines: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    on_sample: Callable[[Sample], None] | None = None
    serial: Iterator[int] = field(default_factory=itertools.count)
    in_flight: Any = field(default_factory=Pool)  # open loop: requests not yet answered

    def connect(self) -> Connection:
        """A new connection to the service."""
        return Connection(self.url, self.key, timeout=self.timeout)

    def record(self, sample: Sample) -> None:
        """Keep a sample, and pass it to `on_sample`."""
        self.samples.append(sample)
        if self.on_sample:
            self.on_sample(sample)


class Developer(User):
    """A developer of the team; in open-loop mode, a source of requests that does not wait for answers."""

    def on_start(self) -> None:
        self.test: LoadTest = self.environment.loadtest
        number = next(self.test.serial)
        self.generator = RequestGenerator(self.test.workload, number)
        self.connection = self.test.connect()
        self.arrivals = Random(f"{self.test.workload.seed}/arrivals/{number}")  # noqa: S311 - repeatable, not secret
        self.due = time.monotonic()
        self.pause = 0.0

    def wait_time(self) -> float:
        """Seconds until the next request. Locust does the waiting, so that it can stop a user meanwhile."""
        return self.pause

    def on_stop(self) -> None:
        self.connection.close()

    @task
    def work(self) -> None:
        """One request and the pause after it; in open-loop mode, one arrival of a Poisson process."""
        request = self.generator.next()
        if not self.test.rate:
            sample = self._send(request, self.connection)
            # A client that is told when to come back waits for that long, within reason.
            self.pause = max(self.generator.pause(), min(sample.retry_after or 0.0, 5.0))
            return
        self.due += self.arrivals.expovariate(self.test.rate / max(1, self.test.users))
        gevent.sleep(max(0.0, self.due - time.monotonic()))
        self.test.in_flight.spawn(self._arrive, request, self.due)

    def _arrive(self, request: LoadRequest, due: float) -> None:
        connection = self.test.connect()
        try:
            self._send(request, connection, due)
        finally:
            connection.close()

    def _send(self, request: LoadRequest, connection: Connection, due: float | None = None) -> Sample:
        sample = connection.measure(request, users=self.test.users, due=due)
        if sample.ok:
            self.generator.answered(request, sample.text)
        self.test.record(sample)
        self._show(sample)
        return sample

    def _show(self, sample: Sample) -> None:
        """Show the sample in Locust's own statistics and web page; a refusal is not a latency."""
        failure = None if sample.ok else RuntimeError(f"{sample.outcome}: {sample.detail}")
        self._fire(sample.kind, "end to end", sample.total if sample.ok else None, len(sample.text), failure)
        if sample.ok and sample.ttft is not None:
            self._fire(sample.kind, "TTFT", sample.ttft)

    def _fire(
        self, kind: str, name: str, time_ms: float | None, length: int = 0, failure: Exception | None = None
    ) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=time_ms,
            response_length=length,
            exception=failure,
            context={},
        )
