"""Four ways to an engine, side by side in one run: what each relay costs, and how much it can carry.

    .envs/dev/bin/python -m loadtests.ways [--rounds 5] [--json FILE]

Ways: direct; vllm-router (Rust, the mark to chase) where the program is on the PATH; plain LiteLLM on its
chat path; and the router. The engine is a staged one with exact timing, so what differs is the relay. Ways
take turns in every round, so that drift of the machine hits all alike. Client, engine and relay share the
machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from dotenv import dotenv_values

from loadtests.settings import ROOT

KEY = "m3asureT9xQ2vL7kR4wZ8nB1cJ6hF0dG5s"
TTFT_MS, TOKENS, PER_SECOND = 30, 100, 60
FLOOD_STREAMS, FLOOD_PER_SECOND, FLOOD_TOKENS = 32, 1000, 1500
LITELLM = """
model_list:
  - {model_name: coder, litellm_params: {model: hosted_vllm/coder, api_base: "%s/v1", api_key: none}}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, cancel_on_disconnect: true}
router_settings: {disable_cooldowns: true, num_retries: 0}
litellm_settings: {callbacks: []}
"""


@dataclass
class Way:
    """One way to the engine; `process` is the relay, None for the direct way."""

    name: str
    port: int
    process: psutil.Process | None


@dataclass
class Answer:
    """Seconds from sending to the first content and to the end; events counts what was streamed."""

    first: float
    total: float
    events: int


async def ask(port: int, stream: bool, tokens: int, staged: dict[str, float]) -> Answer:
    """One chat request on a connection of its own, with the engine's timing in `staged`."""
    knobs = staged | {"completion_tokens": tokens}
    message = {"role": "user", "content": f"staged:{json.dumps(knobs)}"}
    content = {"model": "coder", "messages": [message], "max_tokens": tokens, "stream": stream}
    body = json.dumps(content).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    began = time.perf_counter()
    writer.write(head.encode() + body)
    first, events, tail = 0.0, 0, b""
    while data := await reader.read(1 << 18):
        both = tail + data
        if not first and b'"content":"' in both.replace(b'"content":""', b"").replace(b": ", b":"):
            first = time.perf_counter() - began
        events += both.count(b"data: ") - tail.count(b"data: ")
        tail = both[-32:]
        if (b"[DONE]" in tail) if stream else (tail.endswith(b"}")):
            break
    else:
        raise ConnectionError(f"port {port} closed early: {tail!r}")
    total = time.perf_counter() - began
    writer.close()
    return Answer(first, total, events)


def cpu(way: Way) -> float:
    """Seconds of CPU that the relay has used."""
    if way.process is None:
        return 0.0
    family = [way.process, *way.process.children(recursive=True)]
    return float(sum(t.user + t.system for t in (p.cpu_times() for p in family)))


async def measure(ways: Sequence[Way], rounds: int, say: Any = print) -> dict[str, dict[str, Any]]:
    """Every figure of every way."""
    series: dict[str, dict[str, list[float]]] = {way.name: {} for way in ways}

    def add(way: Way, name: str, *values: float) -> None:
        series[way.name].setdefault(name, []).extend(values)

    timing = {"ttft_ms": TTFT_MS, "itl_ms": 1000 / PER_SECOND}
    quick: dict[str, float] = {"ttft_ms": 0, "itl_ms": 0}
    flood = {"ttft_ms": 0, "itl_ms": 1000 / FLOOD_PER_SECOND}
    for number in range(-1, rounds):  # the first round only warms up
        say(f"round {max(number, 0) + 1} of {rounds}")
        for way in ways if number % 2 else ways[::-1]:
            for streams in (1, 5, 16):
                before = cpu(way)
                answers = await asyncio.gather(*(ask(way.port, True, TOKENS, timing) for _ in range(streams)))
                spent = (cpu(way) - before) * 1000
                if number < 0:
                    continue
                add(way, f"ttft_ms_{streams}", *(1000 * answer.first for answer in answers))
                add(way, f"total_ms_{streams}", *(1000 * answer.total for answer in answers))
                add(way, f"cpu_ms_a_request_{streams}", spent / streams)
                add(way, f"cpu_ms_a_chunk_{streams}", spent / sum(answer.events for answer in answers))
            singles = [await ask(way.port, False, 1, quick) for _ in range(20)]
            first = [await ask(way.port, True, 1, quick) for _ in range(20)]
            if number < 0:
                continue
            add(way, "non_streaming_ms", *(1000 * answer.total for answer in singles))
            add(way, "ttft_ms_at_once", *(1000 * answer.first for answer in first))
            began, before = time.perf_counter(), cpu(way)
            asking = (ask(way.port, True, FLOOD_TOKENS, flood) for _ in range(FLOOD_STREAMS))
            events = sum(answer.events for answer in await asyncio.gather(*asking))
            add(way, "chunks_a_second", events / (time.perf_counter() - began))
            add(way, "cpu_ms_a_chunk_flood", (cpu(way) - before) * 1000 / events)
    return {
        way.name: {
            name: {"p50": statistics.median(values), "p95": sorted(values)[int(0.95 * (len(values) - 1))]}
            for name, values in series[way.name].items()
        }
        | {"rss_mb": {"p50": way.process.memory_info().rss / 1e6 if way.process else 0.0}}
        for way in ways
    }


def table(figures: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: a row a figure, a column a way; p50, and p95 where it says more."""
    names = list(figures)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for figure in figures[names[-1]]:
        cells = []
        for name in names:
            found = figures[name].get(figure, {})
            p50, p95 = found.get("p50", 0.0), found.get("p95")
            digits = 0 if p50 >= 1000 else 1 if p50 >= 10 else 3
            show_p95 = p95 is not None and figure.split("_ms")[0] in ("ttft", "total", "non_streaming")
            cells.append(f"{p50:.{digits}f}" + (f" / {p95:.{digits}f}" if show_p95 else ""))
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(arguments: list[str], port: int, environment: dict[str, str]) -> Iterator[psutil.Process]:
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            until = time.monotonic() + 90
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if child.poll() is not None or time.monotonic() > until:
                        output.seek(0)
                        raise SystemExit(output.read().decode()[-2000:]) from None
                    time.sleep(0.1)
            yield psutil.Process(child.pid)
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def the_ways() -> Iterator[list[Way]]:
    """Starts the engine and every relay on ports of their own."""
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="duoserve-ways-")))
        engine, plain, ours, rust = (_free_port() for _ in range(4))
        url = f"http://127.0.0.1:{engine}"
        environment = dict(os.environ)
        staged = [sys.executable, "-m", "loadtests.staged", "--port", str(engine), "--model", "coder,general"]
        started.enter_context(_running(staged, engine, environment))
        ways = [Way("direct", engine, None)]

        program = shutil.which("vllm-router")
        if program:
            command = [program, "--worker-urls", url, "--port", str(rust), "--policy", "round_robin"]
            ways.append(Way("vllm-router", rust, started.enter_context(_running(command, rust, environment))))

        (folder / "litellm.yaml").write_text(LITELLM % url)
        quiet = {
            "LITELLM_OFFLINE_MODE": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        }
        config = {"CONFIG_FILE_PATH": str(folder / "litellm.yaml"), "LITELLM_MASTER_KEY": KEY}
        command = [sys.executable, "-m", "uvicorn", "litellm.proxy.proxy_server:app", "--port", str(plain)]
        command += ["--log-level", "error", "--no-access-log"]
        relay = started.enter_context(_running(command, plain, environment | quiet | config))
        ways.append(Way("plain LiteLLM", plain, relay))

        for alias in ("coder", "general"):
            # Slots for every stream of the flood: what is measured is the relay, not the waiting room.
            text = json.dumps({"model": alias, "max-num-seqs": 64, "max-model-len": 8192})
            (folder / f"{alias}.yaml").write_text(text)
        example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
        own = {
            "LITELLM_MASTER_KEY": KEY,
            "ROUTER_PORT": str(ours),
            "PROFILE": str(folder),
            "CODER_URL": url,
            "GENERAL_URL": url,
            "DUOSERVE_HOME": str(folder),
        }
        command = [sys.executable, "-m", "router"]
        ways.append(
            Way("router", ours, started.enter_context(_running(command, ours, environment | example | own)))
        )
        time.sleep(1)  # the router polls the engine's health
        yield ways


def main() -> int:
    """Measure, print the table, and write the figures if asked."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.ways", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    with the_ways() as ways:
        figures = asyncio.run(measure(ways, arguments.rounds, lambda text: print(text, file=sys.stderr)))
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
