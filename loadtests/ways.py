"""`python -m loadtests ways`: what each kind of relay costs, side by side in one run.

Ways to the engine: direct; vllm-router (Rust, the mark to chase) where the program is on the PATH; plain
LiteLLM on its chat path; and the router. The engine is a mock, 100 tokens at 60 a second after 30 ms,
so that what differs is the relay; or a running one (`--engine URL`). Client, engine and relays share the
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from dotenv import dotenv_values

from loadtests import relay, stats
from loadtests.client import Request, get_json
from loadtests.load import Progress
from loadtests.own_service import free_ports, router_before
from loadtests.relay import Turns, Way
from loadtests.settings import ROOT, engine_config
from mock_engine import MockEngine

MOCK: dict[str, Any] = {"max_model_len": 65536, "ttft_ms": 30, "itl_ms": 16.667, "completion_tokens": 100}
AT_ONCE: dict[str, float] = {"ttft_ms": 0, "itl_ms": 0, "completion_tokens": 1}
FLOOD: dict[str, float] = {"ttft_ms": 0, "itl_ms": 1, "completion_tokens": relay.CHUNKS}
LITELLM = """
model_list:
  - {model_name: coder, litellm_params: {model: hosted_vllm/coder, api_base: "%s/v1", api_key: none}}
  - {model_name: general, litellm_params: {model: hosted_vllm/general, api_base: "%s/v1", api_key: none}}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, cancel_on_disconnect: true}
router_settings: {disable_cooldowns: true, num_retries: 0}
"""
# How often each number of streams is measured in one round: fewer streams give fewer figures each time.
REPEATS = {1: 6, 5: 2, 16: 1}

Figures = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and write the figures if asked. Raises ConnectionError."""
    progress = Progress()
    with ExitStack() as started:
        engine = options.engine or started.enter_context(MockEngine("coder,general", **MOCK)).url
        profile = os.environ.get("PROFILE", "cpu") if options.engine else relay.most_slots()
        ways = started.enter_context(relays(engine, profile))
        figures: dict[str, Figures] = {way.name: {} for way in ways}
        rng = Random("ways")  # noqa: S311 - repeatable, not secret

        def answer(number: int, n: int) -> Request:
            if options.engine:
                return relay.new_prompt("coder", f"{number}/{n}", rng)
            return _request("Hello.", tokens=100)

        for streams, repeats in REPEATS.items():
            turns = relay.in_turns(ways, streams, repeats * options.rounds, answer, progress)
            for name, found in turns.items():
                figures[name] |= _at(streams, found)

        if not options.engine:  # a real one's first token may be no text, and its reading hides the relay's

            def singly(label: str, request: Request, some: Sequence[Way]) -> None:
                turns = relay.in_turns(some, 1, 10 * options.rounds, lambda *_: request, progress)
                for name, found in turns.items():
                    figures[name][label] = _pair([s.ttft or s.total or 0.0 for s in found.samples])

            knobs = f" mock:{json.dumps(AT_ONCE)}"
            # As many bytes as the budget has tokens: from there on the router has to count.
            words = round(_budget(profile) / len("word ") * 1.1)
            short, long = "word " * 50 + knobs, "word " * words + knobs
            singly("1 token, not streamed, ms", _request(short, stream=False), ways)
            singly("short prompt, TTFT, ms", _request(short), ways)
            singly("prompt that has to be counted, TTFT, ms", _request(long), ways)
            cut = _request(*(["word " * (words // 4)] * 24), knobs)
            singly("conversation that has to be cut, TTFT, ms", cut, ways[-1:])
            text = f"mock:{json.dumps(FLOOD)}"
            for way in ways:
                progress(f"flood by {way.name}")
                relay.flood(way, chunks=50, text=text)
                speed, cpu = relay.flood(way, text=text)
                figures[way.name]["32 streams at 1,000/s, chunks a second"] = {"p50": speed}
                figures[way.name]["32 streams at 1,000/s, CPU a chunk, ms"] = {"p50": cpu / 1000}
        for way in ways:
            figures[way.name]["memory, MB"] = {"p50": way.memory_mb()}
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _budget(profile: str) -> float:
    ratio = float(dotenv_values(ROOT / ".env.example")["CONTEXT_RATIO"] or 1)
    return float(str(engine_config(profile, "coder")["max-model-len"])) * ratio


def _request(*turns: str, stream: bool = True, tokens: int = 1) -> Request:
    """A request for an answer of at most so many tokens to an odd number of turns."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    body = {"model": "coder", "messages": messages, "stream": stream, "temperature": 0, "max_tokens": tokens}
    return Request("ways", "/v1/chat/completions", body)


def _pair(values: Sequence[float]) -> dict[str, float]:
    return {"p50": stats.percentile(values, 0.5).value, "p95": stats.percentile(values, 0.95).value}


def _at(streams: int, turns: Turns) -> Figures:
    """The figures of one way at so many streams."""
    chunks = sum(sample.events for sample in turns.samples)
    label = f"{streams} stream{'s' if streams > 1 else ''}"
    return {
        f"{label}: TTFT, ms": _pair([s.ttft or 0.0 for s in turns.samples]),
        f"{label}: end to end, ms": _pair([s.total or 0.0 for s in turns.samples]),
        f"{label}: CPU a request, ms": {"p50": sum(turns.cpu) / len(turns.samples)},
        f"{label}: CPU a chunk, ms": {"p50": sum(turns.cpu) / chunks},
    }


def table(figures: dict[str, Figures]) -> str:
    """A Markdown table: a row a figure, a column a way; p50, and p95 where there is one."""
    names = list(figures)
    lines = ["| p50 / p95 | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for figure in figures[names[-1]]:
        cells = []
        for name in names:
            found = figures[name].get(figure)
            if found is None:
                cells.append("–")
                continue
            digits = 0 if found["p50"] >= 1000 else 1 if found["p50"] >= 10 else 3
            cells.append(" / ".join(f"{value:,.{digits}f}" for value in found.values()))
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@contextmanager
def relays(engine: str, profile: str) -> Iterator[list[Way]]:
    """The ways to the engine at this URL, each relay started on a port of its own; the router is the last."""
    with ExitStack() as started:
        ways = [Way("direct", engine)]
        if program := shutil.which("vllm-router"):
            (port,) = free_ports(1)
            command = [program, "--worker-urls", engine, "--port", str(port), "--policy", "round_robin"]
            ways.append(started.enter_context(_started("vllm-router", command, port, {})))
        ways.append(started.enter_context(_plain_litellm(engine)))
        service, pid = started.enter_context(router_before(engine, profile))
        ways.append(Way("router", service.url, service.key, pid))
        yield ways


@contextmanager
def _plain_litellm(engine: str) -> Iterator[Way]:
    (port,), key = free_ports(1), "sk-" + os.urandom(24).hex()
    python = ROOT / ".envs" / "router" / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="duoserve-ways-") as folder:
        config = Path(folder) / "litellm.yaml"
        config.write_text(LITELLM % (engine, engine))
        environment = {
            "CONFIG_FILE_PATH": str(config),
            "LITELLM_MASTER_KEY": key,
            "LITELLM_OFFLINE_MODE": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            # Its guard against a model that repeats itself would end the flood of like chunks.
            "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
        }
        command = [str(python), "-m", "uvicorn", "litellm.proxy.proxy_server:app", "--port", str(port)]
        command += ["--log-level", "error", "--no-access-log"]
        with _started("plain LiteLLM", command, port, environment, key) as way:
            yield way


@contextmanager
def _started(
    name: str, command: list[str], port: int, environment: dict[str, str], key: str = ""
) -> Iterator[Way]:
    """A relay as a process, as soon as it answers. Raises ConnectionError with the end of what it said."""
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        way = Way(name, f"http://127.0.0.1:{port}", key, process.pid)
        deadline = time.monotonic() + 90
        try:
            while True:
                try:
                    get_json(f"{way.url}/v1/models", key)
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        output.seek(0)
                        end = "\n".join(output.read().splitlines()[-5:])
                        raise ConnectionError(f"{name} did not start:\n{end}") from None
                    time.sleep(0.1)
            yield way
        finally:
            process.terminate()
