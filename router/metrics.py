"""What became of every request: one line in the log and the metrics. Never prompts, answers or keys."""

import asyncio
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.admission import Admission
from router.exchange import Exchange, header
from router.gpu import register_gpus
from router.logs import RequestLog
from router.readiness import Readiness
from router.replicas import Replicas
from router.routes import INFERENCE, SERVED

# The promises are 0.5 s to the first token and 2 s for a short completion: both are bucket limits.
_SECONDS = (
    0.025,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
)
# What the promise calls a completion: an answer of so many tokens.
_COMPLETION = range(50, 101)
# A client that asked within so many seconds counts as a user.
_ACTIVE_SECONDS = 300.0
_MOST_CLIENTS = 10_000
_TOKENS = ("prompt", "completion", "cached")
# Reasons that config/prometheus/rules look at.
_ALARMING = (
    "queue_full",
    "queue_timeout",
    "engine_failed",
    "engine_overloaded",
    "deadline",
    "internal",
    "limits_down",
)
_ITL_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0)


class Metrics:
    """The metrics of the router, in a registry of their own: LiteLLM's would otherwise be among them."""

    def __init__(
        self, admission: Admission, readiness: Readiness, replicas: Replicas, log_folder: Path
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.clients = ActiveClients()
        self._registry.register(_Now(admission, readiness, replicas, log_folder, self.clients))
        register_gpus(self._registry)
        one = self._registry
        self.requests = Counter(
            "duoserve_requests", "Requests answered", ["alias", "path", "status"], registry=one
        )
        self.rejections = Counter("duoserve_rejections", "Requests refused", ["reason"], registry=one)
        self.aborted = Counter("duoserve_aborted", "Requests whose client left", ["alias"], registry=one)
        self.truncations = Counter("duoserve_truncations", "Prompts shortened", ["alias"], registry=one)
        self.tokens = Counter("duoserve_tokens", "Tokens", ["alias", "kind"], registry=one)
        self.queue_wait = Histogram(
            "duoserve_queue_wait_seconds", "Waiting for a slot", ["alias"], buckets=_SECONDS, registry=one
        )
        self.ttft = Histogram(
            "duoserve_ttft_seconds",
            "To the first token of a stream",
            ["alias"],
            buckets=_SECONDS,
            registry=one,
        )
        self.itl = Histogram(
            "duoserve_itl_seconds", "Mean between tokens", ["alias"], buckets=_ITL_SECONDS, registry=one
        )
        self.seconds = Histogram(
            "duoserve_request_seconds", "Whole requests", ["alias"], buckets=_SECONDS, registry=one
        )
        self.completion = Histogram(
            "duoserve_completion_seconds",
            "Whole requests whose answer has 50 to 100 tokens",
            ["alias"],
            buckets=_SECONDS,
            registry=one,
        )

        self._begin_at_zero(readiness.status)

    def _begin_at_zero(self, aliases: Iterable[str]) -> None:
        """Counters appear before their first event, since the jump from nothing to one is no increase."""
        for alias in aliases:
            for histogram in (self.queue_wait, self.ttft, self.itl, self.seconds, self.completion):
                histogram.labels(alias)
            for counter in (self.aborted, self.truncations):
                counter.labels(alias)
            for kind in _TOKENS:
                self.tokens.labels(alias, kind)
            for path in INFERENCE:
                self.requests.labels(alias, path, "200")
        for reason in _ALARMING:
            self.rejections.labels(reason)

    def as_text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class ActiveClients:
    """The clients that asked within the last minutes."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # by client, the latest last

    def note(self, client: str) -> None:
        """`client` asks now."""
        self._last.pop(client, None)
        self._last[client] = time.monotonic()
        if len(self._last) > _MOST_CLIENTS:
            del self._last[next(iter(self._last))]

    def count(self) -> int:
        """How many there are now."""
        since = time.monotonic() - _ACTIVE_SECONDS
        return sum(asked >= since for asked in self._last.values())


class _Now(Collector):
    """What is true at the moment of the scrape."""

    def __init__(
        self,
        admission: Admission,
        readiness: Readiness,
        replicas: Replicas,
        log_folder: Path,
        clients: ActiveClients,
    ) -> None:
        self._admission = admission
        self._readiness = readiness
        self._replicas = replicas
        self._log_folder = log_folder
        self._clients = clients

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = GaugeMetricFamily("duoserve_in_flight", "Requests in a slot", labels=["alias"])
        waiting = GaugeMetricFamily("duoserve_waiting", "Requests that wait for a slot", labels=["alias"])
        slots = GaugeMetricFamily("duoserve_slots", "Requests that may run at once", labels=["alias"])
        ready = GaugeMetricFamily("duoserve_ready", "Whether the model serves", labels=["alias"])
        each = ["alias", "engine"]
        engines = GaugeMetricFamily("duoserve_engine_ready", "Whether an engine serves", labels=each)
        loads = GaugeMetricFamily("duoserve_engine_in_flight", "Requests in an engine", labels=each)
        for alias in self._readiness.status:
            running.add_metric([alias], self._admission.running(alias))
            waiting.add_metric([alias], self._admission.waiting(alias))
            slots.add_metric([alias], self._admission.slots(alias))
            ready.add_metric([alias], self._readiness.is_ready(alias))
        for replica, status in self._readiness.each.items():
            labels = [replica.alias, str(replica.number)]
            engines.add_metric(labels, status.state == "ready")
            loads.add_metric(labels, self._replicas.running[replica])
        yield from (running, waiting, slots, ready, engines, loads)
        yield GaugeMetricFamily(
            "duoserve_active_clients", "Clients that asked within 5 minutes", self._clients.count()
        )
        disk = shutil.disk_usage(self._log_folder)
        yield GaugeMetricFamily("duoserve_log_disk_free_bytes", "Free on the disk of the logs", disk.free)
        yield GaugeMetricFamily("duoserve_log_disk_total_bytes", "Size of the disk of the logs", disk.total)


class Record:
    """The outermost layer: makes the exchange of each request, watches its answer, and records what
    became of it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: RequestLog) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing of its own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(path=scope["path"], their_id=header(scope, b"x-request-id")[:128])
        status = 0
        first = last = 0.0

        async def watching(message: Message) -> None:
            nonlocal status, first, last
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message.get("body"):
                last = time.monotonic()
                first = first or last
            await send(message)

        try:
            await self._app({**scope, "duoserve": exchange}, receive, watching)
        except asyncio.CancelledError:
            exchange.aborted = True
            raise
        finally:
            self._note(exchange, status, first, last)

    def _note(self, exchange: Exchange, status: int, first: float, last: float) -> None:
        now = time.monotonic()
        ttft = itl = None
        if exchange.stream and status == 200 and first:
            ttft = first - exchange.started
            if (exchange.completion_tokens or 0) > 1:
                itl = (last - first) / (exchange.completion_tokens - 1)  # type: ignore[operator]
        path = exchange.path if exchange.path in SERVED else "other"
        alias = exchange.alias or "none"
        metrics = self._metrics
        metrics.requests.labels(
            alias, path, "aborted" if exchange.aborted and not status else str(status)
        ).inc()
        if exchange.reason:
            metrics.rejections.labels(exchange.reason).inc()
        if path not in INFERENCE:
            return
        if exchange.alias:
            self._measure(exchange, ttft, itl, now - exchange.started if status == 200 else None)
        self._log.write(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": exchange.request_id,
                "their_request_id": exchange.their_id or None,
                "client": exchange.client or None,
                "key": exchange.key_name or None,
                "alias": exchange.alias or None,
                "engine": exchange.replica.number if exchange.replica else None,
                "path": path,
                "stream": exchange.stream,
                "status": status or None,
                "queue_wait_ms": _ms(exchange.queue_wait),
                "queue_position": exchange.queue_position,
                "in_flight": exchange.in_flight,
                "ttft_ms": _ms(ttft),
                "itl_ms": _ms(itl),
                "total_ms": _ms(now - exchange.started),
                "prompt_tokens": exchange.prompt_tokens,
                "completion_tokens": exchange.completion_tokens,
                "cached_tokens": exchange.cached_tokens,
                "truncated_messages": exchange.truncated_messages,
                "truncated_tokens": exchange.truncated_tokens,
                "error": exchange.reason or None,
                "aborted": exchange.aborted,
            }
        )

    def _measure(
        self, exchange: Exchange, ttft: float | None, itl: float | None, seconds: float | None
    ) -> None:
        alias, metrics = exchange.alias, self._metrics
        if exchange.client:
            metrics.clients.note(exchange.client)
        observed: Mapping[Histogram, float | None] = {
            metrics.queue_wait: exchange.queue_wait,
            metrics.ttft: ttft,
            metrics.itl: itl,
            metrics.seconds: seconds,
            metrics.completion: seconds if exchange.completion_tokens in _COMPLETION else None,
        }
        for histogram, value in observed.items():
            if value is not None:
                histogram.labels(alias).observe(value)
        for kind in _TOKENS:
            metrics.tokens.labels(alias, kind).inc(getattr(exchange, f"{kind}_tokens") or 0)
        if exchange.truncated_tokens:
            metrics.truncations.labels(alias).inc()
        if exchange.aborted:
            metrics.aborted.labels(alias).inc()


def _ms(seconds: float | None) -> Any:
    return None if seconds is None else round(seconds * 1000, 2)
