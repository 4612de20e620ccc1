"""Figures per model from the router's metrics: of the last minutes, and the promises of the last 30 days."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Buckets = dict[float, float]  # upper limit in seconds: requests at or below it, since the router's start


@dataclass
class Promise:
    """What is promised, and how each model kept it in the last 30 days.

    Attributes:
        objective: the share of requests (0-1) that are to keep it.
        limit: the promised time in seconds; None if the promise is about none, or this CPU was not measured.
        kept: by model, how many requests kept it.
        broken: by model, how many did not.
    """

    objective: float = 1.0
    limit: float | None = None
    kept: dict[str, float] = field(default_factory=dict)
    broken: dict[str, float] = field(default_factory=dict)

    def requests(self, model: str) -> float:
        """How many requests to a model the promise was about."""
        return self.kept.get(model, 0.0) + self.broken.get(model, 0.0)

    def budget_left(self, model: str) -> float | None:
        """The share of a model's error budget that is left: below 0 if overdrawn, None without requests.

        The budget is the share of requests that may break the promise
        (https://sre.google/workbook/alerting-on-slos/).
        """
        budget = (1 - self.objective) * self.requests(model)
        return 1 - self.broken.get(model, 0.0) / budget if budget else None


@dataclass(frozen=True)
class MetricsSample:
    """The router's metrics at one moment (Unix time), by model."""

    time: float
    ttft: dict[str, Buckets] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)  # by name: ttft, completion, availability
    promises_since: float | None = None  # Unix time from which their requests are counted

    @property
    def ttft_limit(self) -> float | None:
        """The promised time to the first token in seconds, if it is known."""
        return self.promises["ttft"].limit if "ttft" in self.promises else None


@dataclass(frozen=True)
class ChartPoint:
    """One model between two samples."""

    time: float
    model: str
    ttft_p95: float | None  # seconds; None without requests
    tokens_per_second: float
    waiting: int


def parse(text: str, now: float) -> MetricsSample:
    """A sample from metrics in Prometheus' text format. Raises ValueError when it is not that."""
    sample = MetricsSample(now)
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            model = labels.get("alias", "")
            if name == "duoserve_ttft_seconds_bucket":
                limits = sample.ttft.setdefault(model, {})
                limit = float(labels["le"])
                limits[limit] = limits.get(limit, 0.0) + value
            elif name == "duoserve_tokens_total" and labels["kind"] == "completion":
                sample.tokens[model] = sample.tokens.get(model, 0.0) + value
            elif name == "duoserve_waiting":
                sample.waiting[model] = sample.waiting.get(model, 0) + int(value)
            elif name == "duoserve_in_flight":
                sample.in_flight[model] = sample.in_flight.get(model, 0) + int(value)
            elif name == "duoserve_promise_start_timestamp_seconds":
                sample = replace(sample, promises_since=value)
            elif "promise" in labels:
                promise = sample.promises.setdefault(labels["promise"], Promise())
                if name == "duoserve_promise_objective_ratio":
                    promise.objective = value
                elif name == "duoserve_promise_limit_seconds":
                    promise.limit = value
                elif name == "duoserve_promise_requests_30d":
                    (promise.kept if labels["kept"] == "yes" else promise.broken)[model] = value
    return sample


def quantile(before: Buckets, after: Buckets, share: float) -> float | None:
    """The value below which `share` of the requests between two samples stayed, or None without requests.

    Linear within a bucket, as Prometheus' histogram_quantile
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
    """
    limits = sorted(after)
    counts = [max(0.0, after[limit] - before.get(limit, 0.0)) for limit in limits]
    total = counts[-1] if counts else 0.0
    if not total:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for limit, count in zip(limits, counts, strict=True):
        if count >= rank:
            if limit == float("inf"):
                return low
            return low + (limit - low) * (rank - below) / (count - below)
        low, below = limit, count
    return None


def points(samples: Sequence[MetricsSample], every: float = 10.0) -> list[ChartPoint]:
    """Each model over time, one point every `every` seconds."""
    course: list[ChartPoint] = []
    for before, after in pairwise(_spaced(samples, every)):
        elapsed = after.time - before.time
        for model in sorted(set(after.ttft) | set(after.tokens) | set(after.waiting)):
            made = after.tokens.get(model, 0.0) - before.tokens.get(model, 0.0)
            course.append(
                ChartPoint(
                    after.time,
                    model,
                    quantile(before.ttft.get(model, {}), after.ttft.get(model, {}), 0.95),
                    max(0.0, made) / elapsed,  # a restarted router counts from 0 again
                    after.waiting.get(model, 0),
                )
            )
    return course


def _spaced(samples: Iterable[MetricsSample], every: float) -> list[MetricsSample]:
    kept: list[MetricsSample] = []
    for sample in samples:
        if not kept or sample.time - kept[-1].time >= every:
            kept.append(sample)
    return kept
