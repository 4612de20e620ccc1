"""`python -m loadtests crosscheck`: the same load measured by `vllm bench serve`, an independent tool.

The same prompts, in the same order, sent at the same even pace. Not so many at a time, each after the last:
then equal answers end in the same step of the engine, their successors arrive together, and microseconds
between the tools decide whether a prompt is read in that step or in the next. The tools take turns, and each
figure is the median of the rounds', so that a moment when the machine does something else decides nothing.
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

from loadtests import gate, stats
from loadtests.client import Client, Request, Sample
from loadtests.load import Progress
from loadtests.material import Conversation
from loadtests.settings import ROOT, Service, engine_config, service
from loadtests.suites import LoadTest

TOLERANCE = 0.10
RATE = 3.0  # requests a second
CONNECTIONS = 8  # more than are ever under way
PROMPTS = 40
TOKENS = 32
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One figure as both tools measured it."""

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
    target = service()
    test, _ = gate.prepare(target, "chat")
    rows = compare(target, test, Progress())
    print(f"{'':24}{'this tool':>12}{'vllm bench':>12}{'ratio':>8}")
    for row in rows:
        verdict = "" if row.agrees else "  DISAGREES"
        print(f"{row.name:24}{row.ours:12.1f}{row.theirs:12.1f}{row.ours / row.theirs:8.3f}{verdict}")
    return 0 if all(row.agrees for row in rows) else 1


def compare(target: Service, test: LoadTest, progress: Progress) -> list[Row]:
    """Both tools in turns, with the same prompts. Raises ConnectionError when either cannot measure.

    All prompts are asked once before, so that the prefix cache is as warm for the first as for the second.
    """
    rng = Random("crosscheck")  # noqa: S311 - repeatable, not secret
    prompts = [Conversation(rng).messages[-1]["content"] for _ in range(PROMPTS)]
    alias = test.model_for("chat")
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
            rows.append(Row(f"{name}, p{quantile * 100:.0f}, ms", *found))
    samples = [s for r in ours for s in r]
    answers, asked = (sum(sum(r[n]) for r in theirs) for n in ("output_lens", "input_lens"))
    rows.append(Row("answer tokens", sum(s.completion_tokens or 0 for s in samples), answers, True))
    rows.append(Row("prompt tokens", sum(s.prompt_tokens or 0 for s in samples), asked, True))
    return rows


def _ours(test: LoadTest, alias: str, prompts: Sequence[str]) -> list[Sample]:
    clients: Queue[Client] = Queue()
    for _ in range(CONNECTIONS):
        clients.put(test.connect())
    samples: list[Sample] = []

    def ask(prompt: str, due: float | None = None) -> Sample:
        client: Client = clients.get()
        sample = client.measure(_request(alias, prompt), due=due)
        clients.put(client)
        return sample

    for _ in range(CONNECTIONS):
        ask(prompts[0])  # connects and is not counted: theirs warms up as well
    pool = Pool()
    began = time.monotonic()
    for number, prompt in enumerate(prompts):
        due = began + number / RATE
        gevent.sleep(max(0.0, due - time.monotonic()))
        pool.spawn(lambda prompt=prompt, due=due: samples.append(ask(prompt, due)))
    pool.join()
    while not clients.empty():
        clients.get().close()
    failed = [s for s in samples if not s.ok]
    if failed:
        raise ConnectionError(
            f"{len(failed)} requests failed, the first: {failed[0].outcome} {failed[0].detail}"
        )
    return samples


def _request(alias: str, prompt: str) -> Request:
    body = {
        "model": alias,
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Request("crosscheck", "/v1/chat/completions", body, TOKENS)


def _theirs(target: Service, alias: str, prompts: Sequence[str]) -> dict[str, list[float]]:
    vllm = ROOT / ".envs" / "engine" / "bin" / "vllm"
    if not vllm.exists():
        raise ConnectionError("vllm is not installed here: ./run setup engine")
    model = str(engine_config(target.profile, alias)["model"])
    with tempfile.TemporaryDirectory() as name:
        # ShareGPT's format: of its datasets the one that takes prompts of one's own without pandas.
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
        # The key goes by the environment: command lines can be read by every user of the machine.
        environment = os.environ | {"OPENAI_API_KEY": target.key, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            raise ConnectionError("vllm bench serve failed:\n" + "\n".join(done.stdout.splitlines()[-5:]))
        result: dict[str, Any] = json.loads((Path(name) / "result.json").read_text())
    if any(result["errors"]):
        raise ConnectionError(f"vllm bench serve: {next(filter(None, result['errors']))[:300]}")
    # It does not save end-to-end times: they are the first token and the gaps after it.
    times = [first + sum(gaps) for first, gaps in zip(result["ttfts"], result["itls"], strict=True)]
    return {
        "ttfts": result["ttfts"],
        "e2els": times,
        "output_lens": result["output_lens"],
        "input_lens": result["input_lens"],
    }
