"""`python -m loadtests crosscheck`: measures the same load with `vllm bench serve`, an independent tool.

Both send the same prompts in the same order at the same even pace. A fixed number at a time would not do:
equal answers end in the same step of the engine, their successors arrive together, and microseconds decide
whether a prompt is processed in that step or the next. The tools take turns, and each figure is the median of
the rounds, so that other work on the machine, if brief, does not decide.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.queue import Queue

from loadtests import gate
from loadtests.judge import stats
from loadtests.measure.connection import Connection
from loadtests.measure.load import Progress
from loadtests.measure.sample import Sample
from loadtests.measure.users import LoadTest
from loadtests.settings import ROOT, Target, engine_config
from loadtests.workload.material import Conversation
from loadtests.workload.request import LoadRequest

TOLERANCE = 0.10
RATE = 3.0  # requests per second
CONNECTIONS = 8  # more than are ever under way
PROMPTS = 40
TOKENS = 32
ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """A figure as measured by both tools."""

    name: str
    ours: float
    theirs: float
    exact: bool = False

    @property
    def agrees(self) -> bool:
        """Token counts exactly, times within the tolerance."""
        if self.exact:
            return self.ours == self.theirs
        return abs(self.ours / self.theirs - 1) <= TOLERANCE


def run(options: argparse.Namespace) -> int:
    """Measure with both and print the table; returns 1 when they disagree.

    Raises SettingError, ConnectionError.
    """
    target = Target.from_environment()
    test, _ = gate.prepare(target, "chat")
    rows = compare(target, test, Progress())
    print(f"{'':24}{'this tool':>12}{'vllm bench':>12}{'ratio':>8}")
    for row in rows:
        verdict = "" if row.agrees else "  DISAGREES"
        print(f"{row.name:24}{row.ours:12.1f}{row.theirs:12.1f}{row.ours / row.theirs:8.3f}{verdict}")
    return 0 if all(row.agrees for row in rows) else 1


def compare(target: Target, test: LoadTest, progress: Progress) -> list[Comparison]:
    """Measure with both tools in turns. Raises ConnectionError when either cannot measure.

    All prompts are sent once before, so that the prefix cache is equally warm for both tools.
    """
    rng = Random("crosscheck")  # noqa: S311 - repeatable, not secret
    prompts = [Conversation(rng).messages[-1]["content"] for _ in range(PROMPTS)]
    alias = test.workload.model_for("chat")
    _ours(test, alias, prompts)
    ours: list[list[Sample]] = []
    theirs: list[dict[str, list[float]]] = []
    for number in range(ROUNDS):
        progress(f"round {number + 1} of {ROUNDS}, this tool")
        ours.append(_ours(test, alias, prompts))
        progress(f"round {number + 1} of {ROUNDS}, vllm bench serve")
        theirs.append(_theirs(target, alias, prompts))
    progress("")

    def median(rounds: Iterable[list[float]], quantile: float) -> float:
        return statistics.median(stats.percentile(values, quantile).value for values in rounds)

    rows = []
    for name, mine, other in (
        ("TTFT", [[s.ttft or 0.0 for s in r] for r in ours], [r["ttfts"] for r in theirs]),
        ("end to end", [[s.total or 0.0 for s in r] for r in ours], [r["e2els"] for r in theirs]),
    ):
        for quantile in (0.5, 0.95):
            found = (median(mine, quantile), median(other, quantile) * 1000)
            rows.append(Comparison(f"{name}, p{quantile * 100:.0f}, ms", *found))
    samples = [s for r in ours for s in r]
    answers, asked = (sum(sum(r[n]) for r in theirs) for n in ("output_lens", "input_lens"))
    rows.append(Comparison("answer tokens", sum(s.completion_tokens or 0 for s in samples), answers, True))
    rows.append(Comparison("prompt tokens", sum(s.prompt_tokens or 0 for s in samples), asked, True))
    return rows


def _ours(test: LoadTest, alias: str, prompts: Sequence[str]) -> list[Sample]:
    idle: Queue[Connection] = Queue()
    for _ in range(CONNECTIONS):
        idle.put(test.connect())
    samples: list[Sample] = []

    def ask(prompt: str, due: float | None = None) -> Sample:
        connection: Connection = idle.get()
        sample = connection.measure(_request(alias, prompt), due=due)
        idle.put(connection)
        return sample

    for _ in range(CONNECTIONS):
        ask(prompts[0])  # warm-up, as in the other tool
    pool = Pool()
    began = time.monotonic()
    for number, prompt in enumerate(prompts):
        due = began + number / RATE
        gevent.sleep(max(0.0, due - time.monotonic()))
        pool.spawn(lambda prompt=prompt, due=due: samples.append(ask(prompt, due)))
    pool.join()
    while not idle.empty():
        idle.get().close()
    failed = [s for s in samples if not s.ok]
    if failed:
        raise ConnectionError(
            f"{len(failed)} requests failed, the first: {failed[0].outcome} {failed[0].detail}"
        )
    return samples


def _request(alias: str, prompt: str) -> LoadRequest:
    body = {
        "model": alias,
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return LoadRequest("crosscheck", "/v1/chat/completions", body, TOKENS)


def _theirs(target: Target, alias: str, prompts: Sequence[str]) -> dict[str, list[float]]:
    vllm = ROOT / ".envs" / "engine" / "bin" / "vllm"
    if not vllm.exists():
        raise ConnectionError("vllm is not installed here: ./run setup engine")
    model = str(engine_config(target.profile, alias)["model"])
    with tempfile.TemporaryDirectory() as name:
        # ShareGPT's format: the only one that takes custom prompts without pandas.
        dataset = Path(name) / "prompts.json"
        turns = [{"conversations": [{"value": prompt}, {"value": "answer " * TOKENS}]} for prompt in prompts]
        dataset.write_text(json.dumps(turns))
        command = [
            *(str(vllm), "bench", "serve", "--backend", "openai-chat", "--base-url", target.url),
            *("--endpoint", "/v1/chat/completions", "--model", model, "--served-model-name", alias),
            *("--dataset-name", "sharegpt", "--dataset-path", str(dataset), "--disable-shuffle"),
            *("--sharegpt-output-len", str(TOKENS), "--num-prompts", str(len(prompts))),
            *("--request-rate", str(RATE), "--burstiness", "inf", "--num-warmups", str(CONNECTIONS)),
            *("--temperature", "0", "--ignore-eos"),
            *("--save-result", "--save-detailed", "--result-dir", name, "--result-filename", "result.json"),
            "--disable-tqdm",
        ]
        # The key is passed in the environment: every user of the machine can read command lines.
        environment = os.environ | {"OPENAI_API_KEY": target.key, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            raise ConnectionError("vllm bench serve failed:\n" + "\n".join(done.stdout.splitlines()[-5:]))
        result: dict[str, Any] = json.loads((Path(name) / "result.json").read_text())
    if any(result["errors"]):
        raise ConnectionError(f"vllm bench serve: {next(filter(None, result['errors']))[:300]}")
    # End-to-end times are not saved: they are the sum of TTFT and the gaps after it.
    times = [first + sum(gaps) for first, gaps in zip(result["ttfts"], result["itls"], strict=True)]
    return {
        "ttfts": result["ttfts"],
        "e2els": times,
        "output_lens": result["output_lens"],
        "input_lens": result["input_lens"],
    }
