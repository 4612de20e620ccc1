"""What the engines themselves say of a stage of load, by their Prometheus metrics."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import gevent

from loadtests.measure.connection import get_text

INTERVAL = 1.0  # seconds between two looks at how full the KV cache is
_LINE = re.compile(r"^vllm:(\w+)(?:\{.*\})? (\S+)$", re.M)


@dataclass(frozen=True)
class EngineFigures:
    """An engine during a stage: means over its requests, in milliseconds, as vLLM counts them."""

    requests: int
    queue_ms: float  # in the engine's own queue, after the router's
    reading_ms: float  # from the queue to the first token
    step_ms: float  # from one token of an answer to the next
    kv_cache: float  # the largest share of it that was in use
    preemptions: int  # requests that were put back because the KV cache was full

    def with_more(self, other: EngineFigures) -> EngineFigures:
        """Both stages together."""
        parts = (self, other)
        count = max(1, self.requests + other.requests)

        def mean(name: str) -> float:
            return sum(float(getattr(part, name)) * part.requests for part in parts) / count

        return EngineFigures(
            self.requests + other.requests,
            mean("queue_ms"),
            mean("reading_ms"),
            mean("step_ms"),
            max(self.kv_cache, other.kv_cache),
            self.preemptions + other.preemptions,
        )


@dataclass
class EngineWatch:
    """Watches engines, by name and URL, between start() and stop(). One that cannot be read is left out."""

    urls: Mapping[str, str]

    def start(self) -> None:
        """Begin watching, in the background."""
        self._before = self._read()
        self._fullest = dict.fromkeys(self._before, 0.0)
        self._greenlet = gevent.spawn(self._look)

    def _look(self) -> None:
        while True:
            gevent.sleep(INTERVAL)
            for name, metrics in self._read().items():
                self._fullest[name] = max(self._fullest.get(name, 0.0), metrics["kv_cache_usage_perc"])

    def _read(self) -> dict[str, dict[str, float]]:
        found = {}
        for name, url in self.urls.items():
            try:
                found[name] = parsed(get_text(f"{url}/metrics"))
            except OSError:
                continue  # for example on another machine's loopback interface
        return found

    def stop(self) -> dict[str, EngineFigures]:
        """End watching; returns the figures of the engines that had requests."""
        self._greenlet.kill()
        after = self._read()
        return {
            name: figures
            for name, before in self._before.items()
            if name in after and (figures := _figures(before, after[name], self._fullest[name])).requests
        }


def parsed(text: str) -> dict[str, float]:
    """vLLM's metrics by name, without its prefix, from Prometheus' text format: sums over all labels."""
    found: dict[str, float] = defaultdict(float)
    for name, value in _LINE.findall(text):
        found[name] += float(value)
    return found


def _figures(before: dict[str, float], after: dict[str, float], fullest: float) -> EngineFigures:
    def grown(name: str) -> float:
        return after[name] - before[name]

    def mean_ms(histogram: str) -> float:
        return grown(f"{histogram}_seconds_sum") / max(1.0, grown(f"{histogram}_seconds_count")) * 1000

    return EngineFigures(
        int(grown("request_queue_time_seconds_count")),
        mean_ms("request_queue_time"),
        mean_ms("request_prefill_time"),
        mean_ms("inter_token_latency"),
        max(fullest, after["kv_cache_usage_perc"]),
        int(grown("num_preemptions_total")),
    )
