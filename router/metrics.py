"""The router's Prometheus metrics."""

import shutil
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.admission import Admission
from router.error_budget import ErrorBudget
from router.exchange import Exchange
from router.gpu import register_gpus
from router.paths import CONVERSATIONS, INFERENCE, SERVED
from router.promises import COMPLETION_TOKENS, Promises
from router.readiness import Readiness
from router.replicas import Replicas

# fmt: off
# The promises are 0.5 s to the first token and 2 s for a short completion: both are bucket limits.
_SECONDS = (
    0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)
# fmt: on
_ITL_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0)
# A client is active for this long after its latest request.
_ACTIVE_SECONDS = 300.0
_MOST_CLIENTS = 10_000
# Of clients and tools that have series; the rest share one.
_MOST_PAIRS = 200
_TOKENS = ("prompt", "completion", "cached")
# The reasons that config/prometheus/rules refer to.
_ALARMING = ("queue_full", "queue_timeout")
_KEPT = {True: "yes", False: "no"}


class Metrics:
    """The metrics, in their own registry: the default one also has LiteLLM's."""

    def __init__(
        self,
        admission: Admission,
        readiness: Readiness,
        replicas: Replicas,
        log_folder: Path,
        promises: Promises,
        budget: ErrorBudget,
        remote: Container[str] = (),
    ) -> None:
        """`remote` are the models that other services answer; nothing is promised of them."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._clients = ActiveClients()
        self._registry.register(_Gauges(admission, readiness, replicas, log_folder, self._clients, remote))
        self._registry.register(_PromiseGauges(promises, budget))
        register_gpus(self._registry)
        self._judge, self._budget, self._remote = promises.judge, budget, remote
        self._requests = self._counter("duoserve_requests", "Requests answered", "alias", "path", "status")
        self._rejections = self._counter("duoserve_rejections", "Requests refused", "reason")
        self._aborted = self._counter("duoserve_aborted", "Requests whose client left", "alias")
        self._truncations = self._counter("duoserve_truncations", "Prompts shortened", "alias")
        self._tokens = self._counter("duoserve_tokens", "Tokens", "alias", "kind")
        self._turns = self._counter("duoserve_turns", "Turns of conversations", "client", "tool", "agent")
        self._turn_tokens = self._counter(
            "duoserve_turn_tokens",
            "Tokens of their prompts, and how many of them were in the prefix cache",
            *("client", "tool", "agent", "kind"),
        )
        self._read_again = self._counter(
            "duoserve_read_again_tokens",
            "Prompt tokens read again that the turn before had read",
            *("client", "tool", "reason"),
        )
        self._pairs: set[tuple[str, str]] = set()
        self._queue_wait = self._histogram("duoserve_queue_wait_seconds", "Time spent waiting for a slot")
        self._ttft = self._histogram("duoserve_ttft_seconds", "Time to the first token of a stream")
        self._itl = self._histogram(
            "duoserve_itl_seconds", "Mean time between the tokens of a stream", _ITL_SECONDS
        )
        self._seconds = self._histogram("duoserve_request_seconds", "Duration of requests")
        self._completion = self._histogram(
            "duoserve_completion_seconds", "Duration of requests whose answer has 50 to 100 tokens"
        )
        self._promises = self._counter(
            "duoserve_promise_requests",
            "Requests that a promise is about, and whether they kept it",
            *("alias", "promise", "kept"),
        )
        self._begin_at_zero(readiness.status, promises.objectives)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, documentation, ["alias"], buckets=buckets, registry=self._registry)

    def _begin_at_zero(self, aliases: Iterable[str], promises: Iterable[str]) -> None:
        # Prometheus does not see the step from an absent counter to 1 as an increase.
        for alias in aliases:
            for histogram in (self._queue_wait, self._ttft, self._itl, self._seconds, self._completion):
                histogram.labels(alias)
            for counter in (self._aborted, self._truncations):
                counter.labels(alias)
            for kind in _TOKENS:
                self._tokens.labels(alias, kind)
            for path in INFERENCE:
                self._requests.labels(alias, path, "200")
            if alias not in self._remote:
                for promise, kept in product(promises, _KEPT.values()):
                    self._promises.labels(alias, promise, kept)
        for reason in _ALARMING:
            self._rejections.labels(reason)

    def as_text(self) -> bytes:
        """The response of /metrics, in Prometheus' text format."""
        return generate_latest(self._registry)

    def count(
        self, exchange: Exchange, status: int, ttft: float | None, itl: float | None, seconds: float
    ) -> None:
        """Count a request that has ended.

        Args:
            exchange: the request.
            status: of the response; 0 if the client left before there was one.
            ttft: seconds to the first token, of streams.
            itl: mean seconds between tokens, of streams.
            seconds: duration of the request.
        """
        alias, path = exchange.alias, exchange.path
        self._requests.labels(
            alias or "none",
            path if path in SERVED else "other",
            "aborted" if exchange.aborted and not status else str(status),
        ).inc()
        if exchange.reason:
            self._rejections.labels(exchange.reason).inc()
        if not alias:
            return
        if exchange.client:
            self._clients.add(exchange.client)
        succeeded = status == 200
        short = exchange.completion_tokens in COMPLETION_TOKENS
        observed: Mapping[Histogram, float | None] = {
            self._queue_wait: exchange.queue_wait,
            self._ttft: ttft,
            self._itl: itl,
            self._seconds: seconds if succeeded else None,
            self._completion: seconds if succeeded and short else None,
        }
        for histogram, value in observed.items():
            if value is not None:
                histogram.labels(alias).observe(value)
        for kind in _TOKENS:
            self._tokens.labels(alias, kind).inc(getattr(exchange, f"{kind}_tokens") or 0)
        self._count_cache(exchange)
        if alias not in self._remote:
            for promise, kept in self._judge(exchange, status, ttft, seconds).items():
                self._promises.labels(alias, promise, _KEPT[kept]).inc()
                self._budget.add(alias, promise, kept)
        if exchange.truncated_tokens:
            self._truncations.labels(alias).inc()
        if exchange.aborted:
            self._aborted.labels(alias).inc()

    def _count_cache(self, exchange: Exchange) -> None:
        """By client and tool, what of the prompts was in the cache."""
        if exchange.path not in CONVERSATIONS or exchange.cached_tokens is None or not exchange.prompt_tokens:
            return
        pair = (exchange.client, exchange.tool)
        if pair not in self._pairs and len(self._pairs) >= _MOST_PAIRS:
            pair = ("other", "other")
        self._pairs.add(pair)
        agent = "yes" if exchange.body.get("tools") else "no"
        self._turns.labels(*pair, agent).inc()
        self._turn_tokens.labels(*pair, agent, "prompt").inc(exchange.prompt_tokens)
        self._turn_tokens.labels(*pair, agent, "cached").inc(exchange.cached_tokens)
        if exchange.loss:
            self._read_again.labels(*pair, exchange.loss.reason).inc(exchange.loss.again)


class ActiveClients:
    """The clients that sent a request in the last minutes."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # by client, the latest last

    def add(self, client: str) -> None:
        """`client` has just sent a request."""
        self._last.pop(client, None)
        self._last[client] = time.monotonic()
        if len(self._last) > _MOST_CLIENTS:
            del self._last[next(iter(self._last))]

    def count(self) -> int:
        """How many clients are active now."""
        since = time.monotonic() - _ACTIVE_SECONDS
        return sum(last >= since for last in self._last.values())


class _Gauges(Collector):
    """The state at the moment of the scrape."""

    def __init__(
        self,
        admission: Admission,
        readiness: Readiness,
        replicas: Replicas,
        log_folder: Path,
        clients: ActiveClients,
        remote: Container[str],
    ) -> None:
        self._remote = remote
        self._admission = admission
        self._readiness = readiness
        self._replicas = replicas
        self._log_folder = log_folder
        self._clients = clients

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = GaugeMetricFamily("duoserve_in_flight", "Slots that are taken", labels=["alias"])
        waiting = GaugeMetricFamily("duoserve_waiting", "Requests waiting for a slot", labels=["alias"])
        slots = GaugeMetricFamily("duoserve_slots", "Answers that may be decoded at once", labels=["alias"])
        ready = GaugeMetricFamily("duoserve_ready", "Whether the model is ready", labels=["alias"])
        remote = GaugeMetricFamily("duoserve_remote", "Whether another service answers", labels=["alias"])
        each = ["alias", "engine"]
        engines = GaugeMetricFamily("duoserve_engine_ready", "Whether an engine is ready", labels=each)
        loads = GaugeMetricFamily("duoserve_engine_in_flight", "Answers that an engine decodes", labels=each)
        for alias in self._readiness.status:
            running.add_metric([alias], self._admission.running(alias))
            waiting.add_metric([alias], self._admission.waiting(alias))
            slots.add_metric([alias], self._admission.slots(alias))
            ready.add_metric([alias], self._readiness.is_ready(alias))
            remote.add_metric([alias], alias in self._remote)
        for replica, status in self._readiness.each.items():
            labels = [replica.alias, str(replica.number)]
            engines.add_metric(labels, status.state == "ready")
            loads.add_metric(labels, self._replicas.running[replica])
        yield from (running, waiting, slots, ready, remote, engines, loads)
        yield GaugeMetricFamily(
            "duoserve_active_clients", "Clients with a request in the last 5 minutes", self._clients.count()
        )
        try:
            disk = shutil.disk_usage(self._log_folder)
        except OSError:  # somebody deleted the folder; it is back with the next line
            return
        yield GaugeMetricFamily(
            "duoserve_log_disk_free_bytes", "Free space on the disk of the logs", disk.free
        )
        yield GaugeMetricFamily("duoserve_log_disk_total_bytes", "Size of the disk of the logs", disk.total)


class _PromiseGauges(Collector):
    """What is promised, and how the promises were kept in the last 30 days."""

    def __init__(self, promises: Promises, budget: ErrorBudget) -> None:
        self._promises = promises
        self._budget = budget

    def collect(self) -> Iterator[GaugeMetricFamily]:
        objectives = GaugeMetricFamily(
            "duoserve_promise_objective_ratio", "Requests that are to keep a promise", labels=["promise"]
        )
        for promise, share in self._promises.objectives.items():
            objectives.add_metric([promise], share)
        limits = GaugeMetricFamily(
            "duoserve_promise_limit_seconds", "Time in which a promise is kept", labels=["promise"]
        )
        for promise, seconds in self._promises.limits.items():
            limits.add_metric([promise], seconds)
        counts = GaugeMetricFamily(
            "duoserve_promise_requests_30d",
            "Requests of the last 30 days, as in duoserve_promise_requests_total",
            labels=["alias", "promise", "kept"],
        )
        requests = self._budget.requests()
        for alias, promise in sorted({(alias, promise) for alias, promise, _ in requests}):
            for kept, label in _KEPT.items():
                counts.add_metric([alias, promise, label], requests[alias, promise, kept])
        yield from (objectives, limits, counts)
        if since := self._budget.since():
            yield GaugeMetricFamily(
                "duoserve_promise_start_timestamp_seconds",
                "Begin of the first of these days that had requests",
                since.timestamp(),
            )
