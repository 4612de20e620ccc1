"""What a relay between clients and an engine costs: the same requests by several ways, in turns."""

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

from loadtests import stats
from loadtests.client import Client, Request, Sample
from loadtests.load import Progress
from loadtests.material import Conversation
from loadtests.own_service import router_before
from loadtests.settings import PROFILES, Service, engine_config
from mock_engine import MockEngine

TOKENS = 64
STREAMS = 32
CHUNKS = 2000


@dataclass(frozen=True)
class Way:
    """One way to an engine; `pid` is the relay's process, None without one or where it is not looked at."""

    name: str
    url: str
    key: str = ""
    pid: int | None = None

    def cpu_seconds(self) -> float:
        """Seconds of CPU that the relay has used."""
        return sum(t.user + t.system for t in (process.cpu_times() for process in self._family()))

    def memory_mb(self) -> float:
        """Megabytes that the relay holds now."""
        return sum(process.memory_info().rss for process in self._family()) / 1e6

    def _family(self) -> list[psutil.Process]:
        if self.pid is None:
            return []
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]


@dataclass
class Turns:
    """What one way gave: every request, and for every turn tokens a second and the relay's CPU (ms)."""

    samples: list[Sample] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def in_turns(
    ways: Sequence[Way],
    streams: int,
    rounds: int,
    request: Callable[[int, int], Request],
    progress: Progress,
) -> dict[str, Turns]:
    """So many requests at once by each way in turn, `rounds` times.

    The way that goes first changes every round, so that drift of the machine hits all alike. `request` makes
    the request of a round's (from -1, which warms the connections) n-th stream. Raises ConnectionError when a
    request fails.
    """
    measured = {way.name: Turns() for way in ways}
    clients = {way.name: [Client(way.url, way.key, target=way.name) for _ in range(streams)] for way in ways}
    for number in range(-1, rounds):
        progress(f"side by side, {streams} at once, round {max(0, number) + 1} of {rounds}")
        for way in ways if number % 2 else ways[::-1]:
            requests = [request(number, n) for n in range(streams)]
            began, before = time.monotonic(), way.cpu_seconds()
            jobs = [
                gevent.spawn(client.measure, request)
                for client, request in zip(clients[way.name], requests, strict=True)
            ]
            samples = [job.get() for job in jobs]
            elapsed, cpu = time.monotonic() - began, way.cpu_seconds() - before
            failed = [sample for sample in samples if not sample.ok]
            if failed:
                raise ConnectionError(
                    f"{way.name}: {len(failed)} of {streams} requests failed, the first: {failed[0].detail}"
                )
            if number >= 0:
                turns = measured[way.name]
                turns.samples += samples
                turns.speeds.append(sum(sample.events for sample in samples) / elapsed)
                turns.cpu.append(cpu * 1000)
    for client in (client for group in clients.values() for client in group):
        client.close()
    progress("")
    return measured


def overhead(
    service: Service, alias: str, rounds: dict[int, int], seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Direct and through the router, for each number of streams; `rounds` says how often each is measured.

    Both get the same prompts, kept out of each other's prefix cache.
    """
    ways = [Way("direct", service.engines[alias][0]), Way("router", service.url, service.key)]
    rng = Random(f"{seed}/overhead")  # noqa: S311 - repeatable, not secret

    def request(number: int, n: int) -> Request:
        return new_prompt(alias, f"{seed}/{number}/{n}", rng)

    return [
        {
            "streams": streams,
            "rounds": count,
            "metrics": _compared(in_turns(ways, streams, count, request, progress)),
        }
        for streams, count in rounds.items()
    ]


def new_prompt(alias: str, prompt: str, rng: Random) -> Request:
    """The same prompt for every way, but for a number at its start that keeps it out of the prefix cache."""
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
    return Request("overhead", "/v1/chat/completions", body, TOKENS)


def _compared(measured: dict[str, Turns]) -> dict[str, Any]:
    series: dict[str, tuple[Callable[[Turns], list[float]], str]] = {
        "TTFT, median": (lambda turns: [s.ttft or 0.0 for s in turns.samples], "ms"),
        "end to end, median": (lambda turns: [s.total or 0.0 for s in turns.samples], "ms"),
        "tokens a second": (lambda turns: turns.speeds, "tokens/s"),
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
    """Chunks a second that come of 32 streams with 1,000 a second each: direct, and through a router.

    One chunk at a time, as engines send them: a relay that may read many at once looks better than it is.
    Client, engine and router share this machine's cores, so these are lower bounds.
    """
    measured = []
    with (
        MockEngine("coder,general", completion_tokens=CHUNKS, itl_ms=1) as engine,
        router_before(engine.url, most_slots()) as (service, pid),
    ):
        for way in (Way("direct", engine.url), Way("through the router", service.url, service.key, pid)):
            progress(f"relay capacity, {way.name}")
            flood(way, chunks=100)
            speed, cpu = flood(way)
            measured.append({"name": way.name, "chunks_per_second": speed, "cpu_ms_per_1000": cpu})
    progress("")
    return measured


def most_slots() -> str:
    """The profile whose engines take the most requests at once: there the relay is the bottleneck."""
    names = [path.name for path in PROFILES.iterdir() if path.is_dir()]
    return max(names, key=lambda name: int(str(engine_config(name, "coder").get("max-num-seqs", 0))))


def flood(way: Way, chunks: int = CHUNKS, text: str = "Hello") -> tuple[float, float]:
    """Chunks a second over STREAMS streams, each asking `text`, and the relay's milliseconds of CPU for 1,000
    chunks.
    """
    began, before = time.monotonic(), way.cpu_seconds()
    jobs = [gevent.spawn(_drain, way.url, way.key, chunks, number, text) for number in range(STREAMS)]
    received = sum(job.get() for job in jobs)
    elapsed = time.monotonic() - began
    return received / elapsed, (way.cpu_seconds() - before) * 1e6 / max(1, received)


def _drain(url: str, key: str, chunks: int, number: int, text: str) -> int:
    """Read one stream to its end; only counts events, so that the client is no bottleneck."""
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
