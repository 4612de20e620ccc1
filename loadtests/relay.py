"""How much the router costs: the same requests direct and through it, in turns; and how much it can relay."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
import psutil

from loadtests import stats
from loadtests.client import Client, Request, Sample
from loadtests.load import Progress
from loadtests.material import Conversation
from loadtests.own_service import router_before, staged_engine
from loadtests.settings import PROFILES, Service, engine_config

TOKENS = 64
STREAMS = 32
CHUNKS = 2000


def overhead(
    service: Service, alias: str, rounds: dict[int, int], seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Direct and through the router, for each number of streams; `rounds` says how often each is measured.

    Both get the same prompts, kept out of each other's prefix cache. The way that goes first changes every
    round, so that drift of the machine hits both alike.
    """
    rng = Random(f"{seed}/overhead")  # noqa: S311 - repeatable, not secret
    results = []
    for streams, count in rounds.items():
        measured: dict[str, list[Sample]] = {"direct": [], "router": []}
        speeds: dict[str, list[float]] = {"direct": [], "router": []}
        clients = {
            "direct": [Client(service.engines[alias], "", target="direct") for _ in range(streams)],
            "router": [Client(service.url, service.key) for _ in range(streams)],
        }
        for number in range(-1, count):  # the first round warms the connections
            progress(f"router against direct, {streams} at once, round {max(0, number) + 1} of {count}")
            for way in ("direct", "router") if number % 2 else ("router", "direct"):
                requests = [_request(alias, f"{seed}/{number}/{n}", rng) for n in range(streams)]
                began = time.monotonic()
                jobs = [
                    gevent.spawn(client.measure, request)
                    for client, request in zip(clients[way], requests, strict=True)
                ]
                samples = [job.get() for job in jobs]
                elapsed = time.monotonic() - began
                if number >= 0:
                    measured[way] += samples
                    speeds[way].append(sum(s.events for s in samples if s.ok) / elapsed)
        for client in clients["direct"] + clients["router"]:
            client.close()
        results.append({"streams": streams, "rounds": count, "metrics": _compared(measured, speeds)})
    progress("")
    return results


def _request(alias: str, prompt: str, rng: Random) -> Request:
    """The same prompt for both ways, but for a number at its start that keeps it out of the prefix cache."""
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


def _compared(measured: dict[str, list[Sample]], speeds: dict[str, list[float]]) -> dict[str, Any]:
    failed = [s for way in measured.values() for s in way if not s.ok]
    if failed:
        raise ConnectionError(f"side by side: {len(failed)} requests failed, the first: {failed[0].detail}")
    series: dict[str, tuple[Callable[[str], list[float]], str]] = {
        "TTFT, median": (lambda way: [s.ttft or 0.0 for s in measured[way]], "ms"),
        "end to end, median": (lambda way: [s.total or 0.0 for s in measured[way]], "ms"),
        "tokens a second": (lambda way: speeds[way], "tokens/s"),
    }
    compared = {}
    for name, (values, unit) in series.items():
        direct, router = values("direct"), values("router")
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
    options = ("--model", "coder,general", "--completion-tokens", str(CHUNKS), "--itl-ms", "1")
    with staged_engine(*options) as engine_url:
        progress("relay capacity, direct")
        _flood(engine_url, "", None, chunks=100)
        speed, _ = _flood(engine_url, "", None)
        measured.append({"name": "direct", "chunks_per_second": speed, "cpu_ms_per_1000": 0.0})
        with router_before(engine_url, _most_slots()) as (service, pid):
            progress("relay capacity, through the router")
            _flood(service.url, service.key, pid, chunks=100)
            speed, cpu = _flood(service.url, service.key, pid)
            measured.append(
                {"name": "through the router", "chunks_per_second": speed, "cpu_ms_per_1000": cpu}
            )
    progress("")
    return measured


def _most_slots() -> str:
    """The profile whose engines take the most requests at once: there the relay is the bottleneck."""
    names = [path.name for path in PROFILES.iterdir() if path.is_dir()]
    return max(names, key=lambda name: int(str(engine_config(name, "coder").get("max-num-seqs", 0))))


def _flood(url: str, key: str, pid: int | None, chunks: int = CHUNKS) -> tuple[float, float]:
    """Chunks a second over STREAMS streams, and the process's milliseconds of CPU for 1,000 chunks."""
    before = _cpu_seconds(pid)
    began = time.monotonic()
    jobs = [gevent.spawn(_drain, url, key, chunks, number) for number in range(STREAMS)]
    received = sum(job.get() for job in jobs)
    elapsed = time.monotonic() - began
    return received / elapsed, (_cpu_seconds(pid) - before) * 1e6 / max(1, received)


def _cpu_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _drain(url: str, key: str, chunks: int, number: int) -> int:
    """Read one stream to its end; only counts events, so that the client is no bottleneck."""
    parts = urlsplit(url)
    message = {"role": "user", "content": f"Stream {number}"}
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
