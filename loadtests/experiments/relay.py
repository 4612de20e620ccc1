"""Measures the cost of a relay in front of an engine: the same requests to several endpoints, in turns."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
import psutil

from loadtests.experiments.spawn import router_before
from loadtests.judge import stats
from loadtests.measure.connection import Connection
from loadtests.measure.load import Progress
from loadtests.measure.memory import with_children
from loadtests.measure.sample import Sample
from loadtests.settings import PROFILES, Target, engine_config
from loadtests.workload.material import Conversation
from loadtests.workload.request import LoadRequest
from mock_engine import MockEngine

TOKENS = 64
STREAMS = 32
CHUNKS = 2000


@dataclass(frozen=True)
class Endpoint:
    """An engine, or a relay in front of it; `pid` is the relay's process, None where that is not measured."""

    name: str
    url: str
    key: str = ""
    pid: int | None = None

    def cpu_seconds(self) -> float:
        """CPU time of the relay so far."""
        return sum(t.user + t.system for t in (process.cpu_times() for process in self._family()))

    def memory_mb(self) -> float:
        """Memory that the relay holds now."""
        return sum(process.memory_info().rss for process in self._family()) / 1e6

    def _family(self) -> list[psutil.Process]:
        return [] if self.pid is None else with_children(self.pid)


@dataclass
class Turns:
    """What was measured at an endpoint: every request, and for each turn tokens per second and CPU (ms)."""

    samples: list[Sample] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def in_turns(
    endpoints: Sequence[Endpoint],
    streams: int,
    rounds: int,
    request: Callable[[int, int], LoadRequest],
    progress: Progress,
) -> dict[str, Turns]:
    """Send `streams` requests at once to each endpoint in turn, `rounds` times.

    The order is reversed every round, so that drift of the machine affects all alike. `request` makes the
    request of a round and a stream, both by number; round -1 warms up the connections. Raises ConnectionError
    when a request fails.
    """
    measured = {end.name: Turns() for end in endpoints}
    connections = {
        end.name: [Connection(end.url, end.key, target=end.name) for _ in range(streams)] for end in endpoints
    }
    for number in range(-1, rounds):
        progress(f"side by side, {streams} at once, round {max(0, number) + 1} of {rounds}")
        for end in endpoints if number % 2 else endpoints[::-1]:
            requests = [request(number, n) for n in range(streams)]
            began, before = time.monotonic(), end.cpu_seconds()
            jobs = [
                gevent.spawn(connection.measure, request)
                for connection, request in zip(connections[end.name], requests, strict=True)
            ]
            samples = [job.get() for job in jobs]
            elapsed, cpu = time.monotonic() - began, end.cpu_seconds() - before
            failed = [sample for sample in samples if not sample.ok]
            if failed:
                raise ConnectionError(
                    f"{end.name}: {len(failed)} of {streams} requests failed, the first: {failed[0].detail}"
                )
            if number >= 0:
                turns = measured[end.name]
                turns.samples += samples
                turns.speeds.append(sum(sample.events for sample in samples) / elapsed)
                turns.cpu.append(cpu * 1000)
    for connection in (connection for group in connections.values() for connection in group):
        connection.close()
    progress("")
    return measured


def overhead(
    target: Target, alias: str, rounds: dict[int, int], seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Direct and through the router; `rounds` says how many rounds to measure with each number of streams.

    Both get the same prompts, kept out of each other's prefix cache.
    """
    endpoints = [Endpoint("direct", target.engines[alias][0]), Endpoint("router", target.url, target.key)]
    rng = Random(f"{seed}/overhead")  # noqa: S311 - repeatable, not secret

    def request(number: int, n: int) -> LoadRequest:
        return new_prompt(alias, f"{seed}/{number}/{n}", rng)

    return [
        {
            "streams": streams,
            "rounds": count,
            "metrics": _compared(in_turns(endpoints, streams, count, request, progress)),
        }
        for streams, count in rounds.items()
    ]


def new_prompt(alias: str, prompt: str, rng: Random) -> LoadRequest:
    """The same prompt for every endpoint, but for a number at its start that defeats the prefix cache."""
    messages = Conversation(Random(prompt)).messages  # noqa: S311 - repeatable, not secret
    messages[0]["content"] = f"{rng.randrange(10**9):09d} {messages[0]['content']}"
    body = {
        "model": alias,
        "messages": messages,
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": f"loadtest-{rng.randrange(1000)}",
    }
    return LoadRequest("overhead", "/v1/chat/completions", body, TOKENS)


def _compared(measured: dict[str, Turns]) -> dict[str, Any]:
    series: dict[str, tuple[Callable[[Turns], list[float]], str]] = {
        "TTFT, median": (lambda turns: [s.ttft or 0.0 for s in turns.samples], "ms"),
        "end to end, median": (lambda turns: [s.total or 0.0 for s in turns.samples], "ms"),
        "tokens per second": (lambda turns: turns.speeds, "tokens/s"),
    }
    compared = {}
    for name, (values, unit) in series.items():
        direct, router = values(measured["direct"]), values(measured["router"])
        compared[name] = {
            "direct": stats.percentile(direct, 0.5).value,
            "router": stats.percentile(router, 0.5).value,
            "unit": unit,
            "ratio": asdict(stats.ratio(router, direct, 0.5, paired=True)),
        }
    return compared


def capacity(progress: Progress) -> list[dict[str, Any]]:
    """Chunks per second received from 32 streams of 1,000 chunks per second: direct, and through a router.

    Chunks come one at a time, as engines send them: a relay that can read many at once looks better than it
    is. Client, engine and router share the machine's cores, so these are lower bounds.
    """
    measured = []
    with (
        MockEngine("coder,general", completion_tokens=CHUNKS, itl_ms=1) as engine,
        router_before(engine.url, most_slots()) as (router, pid),
    ):
        for end in (
            Endpoint("direct", engine.url),
            Endpoint("through the router", router.url, router.key, pid),
        ):
            progress(f"relay capacity, {end.name}")
            flood(end, chunks=100)
            speed, cpu = flood(end)
            measured.append({"name": end.name, "chunks_per_second": speed, "cpu_ms_per_1000": cpu})
    progress("")
    return measured


def most_slots() -> str:
    """The profile whose engines have the most slots, so that the relay is the bottleneck."""
    names = [path.name for path in PROFILES.iterdir() if path.is_dir()]
    return max(names, key=lambda name: int(str(engine_config(name, "coder").get("max-num-seqs", 0))))


def flood(end: Endpoint, chunks: int = CHUNKS, text: str = "Hello") -> tuple[float, float]:
    """Ask `text` on STREAMS streams at once.

    Returns the chunks per second over all streams, and the relay's CPU in milliseconds per 1,000 chunks.
    """
    began, before = time.monotonic(), end.cpu_seconds()
    jobs = [gevent.spawn(_drain, end.url, end.key, chunks, number, text) for number in range(STREAMS)]
    received = sum(job.get() for job in jobs)
    elapsed = time.monotonic() - began
    return received / elapsed, (end.cpu_seconds() - before) * 1e6 / max(1, received)


def _drain(url: str, key: str, chunks: int, number: int, text: str) -> int:
    """Read a stream to its end, and only count its events, so that the client is no bottleneck."""
    parts = urlsplit(url)
    message = {"role": "user", "content": text}
    content = {
        "model": ("coder", "general")[number % 2],
        "messages": [message],
        "max_tokens": chunks,
        "stream": True,
        "user": str(number),
    }
    body = json.dumps(content).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    received = 0
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=120) as sock:
        sock.sendall(head.encode() + body)
        tail = b""
        while b"[DONE]" not in tail:
            data = sock.recv(1 << 18)
            if not data:
                raise ConnectionError(f"{url} closed a stream early: {tail[-200:]!r}")
            both = tail + data
            received += both.count(b"data: ") - tail.count(b"data: ")
            tail = both[-24:]
    return received
