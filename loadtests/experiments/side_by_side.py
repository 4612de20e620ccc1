"""`python -m loadtests side-by-side`: measures what each kind of relay costs, side by side in one run.

The same requests go to the engine directly, through vllm-router (in Rust, the one to match) if it is on the
PATH, through plain LiteLLM, and through the router. The engine is a mock, which sends 100 tokens at 60 per
second after 30 ms, so that only the relays differ; or a running one (`--engine`). Client, engine and relays
share the machine.
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

from loadtests.experiments import relay
from loadtests.experiments.relay import Endpoint, Turns
from loadtests.experiments.spawn import free_ports, router_before
from loadtests.judge import stats
from loadtests.measure.connection import get_json
from loadtests.measure.load import Progress
from loadtests.settings import ROOT, engine_config
from loadtests.workload.request import LoadRequest
from mock_engine import MockEngine

MOCK: dict[str, Any] = {"ttft_ms": 30, "itl_ms": 16.667, "completion_tokens": 100}
AT_ONCE: dict[str, float] = {"ttft_ms": 0, "itl_ms": 0, "completion_tokens": 1}
FLOOD: dict[str, float] = {"ttft_ms": 0, "itl_ms": 1, "completion_tokens": relay.CHUNKS}
LITELLM = """
model_list:
  - {model_name: coder, litellm_params: {model: hosted_vllm/coder, api_base: "%s/v1", api_key: none}}
  - {model_name: general, litellm_params: {model: hosted_vllm/general, api_base: "%s/v1", api_key: none}}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, cancel_on_disconnect: true}
router_settings: {disable_cooldowns: true, num_retries: 0}
"""
# How often each number of streams is measured per round: fewer streams give fewer figures each time.
REPEATS = {1: 6, 5: 2, 16: 1}

Figures = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and write the figures if asked. Raises ConnectionError."""
    progress = Progress()
    with ExitStack() as started:
        profile = os.environ.get("PROFILE", "cpu") if options.engine else relay.most_slots()
        mock = MOCK | {"max_model_len": engine_config(profile, "coder")["max-model-len"]}
        engine = options.engine or started.enter_context(MockEngine("coder,general", **mock)).url
        ends = started.enter_context(_endpoints(engine, profile))
        figures: dict[str, Figures] = {end.name: {} for end in ends}
        rng = Random("ways")  # noqa: S311 - repeatable, not secret

        def answer(number: int, n: int) -> LoadRequest:
            if options.engine:
                return relay.new_prompt("coder", f"{number}/{n}", rng)
            return _request("Hello.", tokens=100)

        for streams, repeats in REPEATS.items():
            turns = relay.in_turns(ends, streams, repeats * options.rounds, answer, progress)
            for name, found in turns.items():
                figures[name] |= _at(streams, found)

        if not options.engine:  # a real one may start with a token without text, and prefill hides the relay

            def singly(label: str, request: LoadRequest, some: Sequence[Endpoint]) -> None:
                turns = relay.in_turns(some, 1, 10 * options.rounds, lambda *_: request, progress)
                for name, found in turns.items():
                    figures[name][label] = _pair([s.ttft or s.total or 0.0 for s in found.samples])

            knobs = f" mock:{json.dumps(AT_ONCE)}"
            # Some more bytes than the budget has tokens: from there on the router has to count.
            words = round(_budget(profile) / len("word ") * 1.1)
            short, long = "word " * 50 + knobs, "word " * words + knobs
            singly("1 token, not streamed, ms", _request(short, stream=False), ends)
            singly("short prompt, TTFT, ms", _request(short), ends)
            singly("prompt that has to be counted, TTFT, ms", _request(long), ends)
            cut = _request(*(["word " * (words // 4)] * 24), knobs)
            singly("conversation that has to be truncated, TTFT, ms", cut, ends[-1:])
            text = f"mock:{json.dumps(FLOOD)}"
            for end in ends:
                progress(f"flood, {end.name}")
                relay.flood(end, chunks=50, text=text)
                speed, cpu = relay.flood(end, text=text)
                figures[end.name]["32 streams at 1,000/s, chunks per second"] = {"p50": speed}
                figures[end.name]["32 streams at 1,000/s, CPU per chunk, ms"] = {"p50": cpu / 1000}
        for end in ends:
            figures[end.name]["memory, MB"] = {"p50": end.memory_mb()}
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _budget(profile: str) -> float:
    ratio = float(dotenv_values(ROOT / ".env.example")["CONTEXT_RATIO"] or 1)
    return float(str(engine_config(profile, "coder")["max-model-len"])) * ratio


def _request(*turns: str, stream: bool = True, tokens: int = 1) -> LoadRequest:
    """A request for at most `tokens` tokens, after an odd number of turns."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    body = {"model": "coder", "messages": messages, "stream": stream, "temperature": 0, "max_tokens": tokens}
    return LoadRequest("side by side", "/v1/chat/completions", body)


def _pair(values: Sequence[float]) -> dict[str, float]:
    return {"p50": stats.percentile(values, 0.5).value, "p95": stats.percentile(values, 0.95).value}


def _at(streams: int, turns: Turns) -> Figures:
    """The figures of one endpoint with `streams` streams."""
    chunks = sum(sample.events for sample in turns.samples)
    label = f"{streams} stream{'s' if streams > 1 else ''}"
    return {
        f"{label}: TTFT, ms": _pair([s.ttft or 0.0 for s in turns.samples]),
        f"{label}: end to end, ms": _pair([s.total or 0.0 for s in turns.samples]),
        f"{label}: CPU per request, ms": {"p50": sum(turns.cpu) / len(turns.samples)},
        f"{label}: CPU per chunk, ms": {"p50": sum(turns.cpu) / chunks},
    }


def table(figures: dict[str, Figures]) -> str:
    """A Markdown table with a row per figure and a column per endpoint; p50, and p95 where there is one."""
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
def _endpoints(engine: str, profile: str) -> Iterator[list[Endpoint]]:
    """The engine at this URL, and a running relay of each kind in front of it; the router is the last."""
    with ExitStack() as started:
        ends = [Endpoint("direct", engine)]
        if program := shutil.which("vllm-router"):
            (port,) = free_ports(1)
            command = [program, "--worker-urls", engine, "--port", str(port), "--policy", "round_robin"]
            ends.append(started.enter_context(_started("vllm-router", command, port, {})))
        ends.append(started.enter_context(_plain_litellm(engine)))
        router, pid = started.enter_context(router_before(engine, profile))
        ends.append(Endpoint("router", router.url, router.key, pid))
        yield ends


@contextmanager
def _plain_litellm(engine: str) -> Iterator[Endpoint]:
    (port,), key = free_ports(1), "sk-" + os.urandom(24).hex()
    python = ROOT / ".envs" / "router" / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="duoserve-litellm-") as folder:
        config = Path(folder) / "litellm.yaml"
        config.write_text(LITELLM % (engine, engine))
        environment = {
            "CONFIG_FILE_PATH": str(config),
            "LITELLM_MASTER_KEY": key,
            "LITELLM_OFFLINE_MODE": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            # Its guard against models that repeat themselves would end the flood of equal chunks.
            "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
        }
        command = [str(python), "-m", "uvicorn", "litellm.proxy.proxy_server:app", "--port", str(port)]
        command += ["--log-level", "error", "--no-access-log"]
        with _started("plain LiteLLM", command, port, environment, key) as end:
            yield end


@contextmanager
def _started(
    name: str, command: list[str], port: int, environment: dict[str, str], key: str = ""
) -> Iterator[Endpoint]:
    """A relay as a process, once it answers. Raises ConnectionError with the last lines of its output."""
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        end = Endpoint(name, f"http://127.0.0.1:{port}", key, process.pid)
        deadline = time.monotonic() + 90
        try:
            while True:
                try:
                    get_json(f"{end.url}/v1/models", key)
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        output.seek(0)
                        lines = "\n".join(output.read().splitlines()[-5:])
                        raise ConnectionError(f"{name} did not start:\n{lines}") from None
                    time.sleep(0.1)
            yield end
        finally:
            process.terminate()
