"""`python -m loadtests beside`: what autocompletions cost while the same engine reads an agent's long prompt.

The same number of completions, one after the other: alone, and beside an agent whose prompts, each a new one,
fill most of the context. Against a running service (`./run up`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from random import Random

import gevent

from loadtests.judge import stats
from loadtests.measure.connection import Connection
from loadtests.measure.sample import Sample
from loadtests.settings import Target, engine_config
from loadtests.workload.material import Conversation
from loadtests.workload.request import LoadRequest

TOKENS = 16
# Of the context: less than CONTEXT_RATIO, so that nothing is cut.
PROMPT_SHARE = 0.6
_TOOL = {
    "type": "function",
    "function": {
        "name": "read",
        "parameters": {"type": "object", "properties": {}},
    },
}


def run(options: argparse.Namespace) -> int:
    """Measure, and print both series and their ratio. Raises SettingError, ConnectionError."""
    target = Target.from_environment()
    model, engine = next(iter(target.engines)), engine_config(target.profile, next(iter(target.engines)))
    rng = Random(options.seed)  # noqa: S311 - repeatable, not secret
    completions(target, model, rng, 2)
    alone = completions(target, model, rng, options.count)
    agents: list[Sample] = []
    agent = gevent.spawn(_agent, target, model, rng, int(str(engine["max-model-len"])), agents)
    gevent.sleep(1)
    beside = completions(target, model, rng, options.count)
    agent.kill()
    for name, samples in (("alone", alone), ("beside an agent", beside), ("the agent", agents)):
        print(f"{name:16} {_figures(samples)}")
    for name, quantile in (("median", 0.5), ("p95", 0.95)):
        print(
            f"completions, {name}: {_seconds(beside, quantile) / _seconds(alone, quantile):.2f} times as long"
        )
    return os.EX_OK


def completions(target: Target, model: str, rng: Random, count: int) -> list[Sample]:
    """Autocompletions in a row, with the pauses of somebody who types. Raises ConnectionError."""
    connection = Connection(target.url, target.key)
    samples = []
    for _ in range(count):
        body = {
            "model": model,
            "prompt": f"# {rng.random()}\n{_text(rng, 700)}",
            "suffix": _text(rng, 200),
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "stream": True,
        }
        sample = connection.measure(LoadRequest("completion", "/v1/completions", body, any_text=True))
        if not sample.ok:
            raise ConnectionError(f"a completion failed: {sample.detail}")
        samples.append(sample)
        gevent.sleep(rng.uniform(0.1, 0.6))
    connection.close()
    return samples


def _agent(target: Target, model: str, rng: Random, window: int, samples: list[Sample]) -> None:
    connection = Connection(target.url, target.key)
    for text in _prompts(rng, window):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "tools": [_TOOL],
            "max_tokens": 4,
            "stream": True,
        }
        samples.append(connection.measure(LoadRequest("agent", "/v1/chat/completions", body, any_text=True)))


def _prompts(rng: Random, window: int) -> Iterator[str]:
    while True:  # about four characters a token
        yield f"{rng.random()} {_text(rng, int(window * PROMPT_SHARE * 4))}"


def _text(rng: Random, characters: int) -> str:
    """So many characters of what developers write."""
    text = ""
    while len(text) < characters:
        text += Conversation(Random(rng.random())).messages[0]["content"] + "\n"  # noqa: S311
    return text[:characters]


def _seconds(samples: Sequence[Sample], quantile: float) -> float:
    return stats.percentile([sample.total or 0.0 for sample in samples], quantile).value


def _figures(samples: Sequence[Sample]) -> str:
    answered = [sample for sample in samples if sample.ok]
    if not answered:
        return "no answer yet"
    ttft = stats.percentile([sample.ttft or 0.0 for sample in answered], 0.5).value
    return (
        f"{len(answered):3} answers; TTFT {ttft:6.0f} ms; end to end, "
        f"median {_seconds(answered, 0.5):6.0f} ms, p95 {_seconds(answered, 0.95):6.0f} ms"
    )
