"""The Locust user: one developer of a suite."""

from __future__ import annotations

import time
from random import Random

import gevent
from locust import User, task

from loadtests.client import Request, Sample
from loadtests.suites import LoadTest, Writer


class Developer(User):
    """A developer of the team; with a rate, a source of requests that does not wait for answers."""

    def on_start(self) -> None:
        """Sit down."""
        self.test: LoadTest = self.environment.loadtest
        number = next(self.test.serial)
        self.writer = Writer(self.test, number)
        self.connection = self.test.connect()
        self.arrivals = Random(f"{self.test.seed}/arrivals/{number}")  # noqa: S311 - repeatable, not secret
        self.due = time.monotonic()
        self.pause = 0.0

    def wait_time(self) -> float:
        """Seconds until the next request; Locust waits, and stops a user who waits at once."""
        return self.pause

    def on_stop(self) -> None:
        """Leave."""
        self.connection.close()

    @task
    def work(self) -> None:
        """One request and the pause after it; with a rate, one arrival of a Poisson process."""
        request = self.writer.next()
        if not self.test.rate:
            sample = self.connection.measure(request, users=self.test.users)
            self.writer.answered(request, sample)
            self._report(sample)
            # A client that is told when to come back waits so long, within reason.
            self.pause = max(self.writer.pause(), min(sample.retry_after or 0.0, 5.0))
            return
        self.due += self.arrivals.expovariate(self.test.rate / max(1, self.test.users))
        gevent.sleep(max(0.0, self.due - time.monotonic()))
        self.test.in_flight.spawn(self._arrive, request, self.due)

    def _arrive(self, request: Request, due: float) -> None:
        connection = self.test.connect()
        try:
            sample = connection.measure(request, users=self.test.users, due=due)
        finally:
            connection.close()
        self.writer.answered(request, sample)
        self._report(sample)

    def _report(self, sample: Sample) -> None:
        self.test.record(sample)
        # Locust's own statistics and web page show the same figures; a refusal is not a latency.
        fire = self.environment.events.request.fire
        failure = None if sample.ok else RuntimeError(f"{sample.outcome}: {sample.detail}")
        fire(
            request_type=sample.kind,
            name="end to end",
            response_time=sample.total if sample.ok else None,
            response_length=len(sample.text),
            exception=failure,
            context={},
        )
        if sample.ok and sample.ttft is not None:
            fire(
                request_type=sample.kind,
                name="TTFT",
                response_time=sample.ttft,
                response_length=0,
                exception=None,
                context={},
            )
