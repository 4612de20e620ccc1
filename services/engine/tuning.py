"""Measures engine configurations against each other: speed, memory, and the quality of the answers.

Run in the engine environment, on a machine with nothing else to do:

    python -m services.engine.tuning config/engines/cpu/coder.yaml [VARIANT.yaml ...]
    python -m services.engine.tuning config/engines/cpu/coder.yaml --precisions [--quality]

The first file is the reference; a variant says only what differs from it. Each is served by vLLM itself, by
two engines on two cores as in the service; one is measured alone, then both together. A variant's key
`environment` holds environment variables; the profile's engine.env applies to all.

`--precisions` compares those of precision.py, with float32 as the reference. `--quality` leaves out the speed
and needs one core only; the exit status is 1 when a variant is worse than LIMITS allow.

Quality is held against the reference: perplexity on pages of this project's documentation and on programs of
this package, 30,000 characters each, with its standard error; and what the variant says after the reference's
own answers to a fixed list of questions. `same answers` counts
the answers that are the same for all of their first 32 tokens. One near tie changes everything after it, and
batching alone turns such ties: the reference's own answers when five are asked at once are a row of their
own.
So `same next token`, which judges each token after the reference's own words, says more. Last, ten questions
that one word answers (samples/questions.txt), asked greedily: how many answers of 40 tokens have that word.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import math
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from services.engine import precision

SAMPLES = Path(__file__).parent / "samples"
# What perplexity is measured on: no model has learnt it. 8 bits make some tokens likelier and others less so;
# after 755 tokens, the mean is known to 0.5 %, after 7,000 to 0.16 %.
READ = {
    "text": ("docs/architecture.md", "docs/chat-app.md", "docs/agents.md"),
    "code": ("services/engine/precision.py", "services/engine/tuning.py"),
}
CHARACTERS, PIECE = 30_000, 6_000
ANSWER = 32  # tokens of an answer that are compared
START_SECONDS = 300
# Tokens that mean nothing, so that no prompt shares a prefix with another. All are plain words of SmolLM2.
VOCABULARY = range(1000, 40000)

# The columns: key, heading, digits.
COLUMNS = (
    ("start", "start, s", 1),
    ("step1", "step at 1 stream, ms", 1),
    ("step5", "5", 1),
    ("step8", "8", 1),
    ("ttft", "TTFT of 700 tokens, ms", 0),
    ("short", "p95 of 100 tokens, 5 users, ms: short prompts", 0),
    ("long", "700 tokens", 0),
    ("pair_short", "two engines: short", 0),
    ("pair_long", "700", 0),
    ("cancel", "engine busy after a cancel, ms", 0),
    ("memory", "memory of an engine, MB", 0),
    ("text", "perplexity: text, %", 2),
    ("text_error", "standard error", 2),
    ("code", "code, %", 2),
    ("code_error", "standard error", 2),
    ("next", "same next token, %", 1),
    ("same", "same answers, %", 0),
    ("right", "right of ten questions", 0),
)
# The quality guard: the most that perplexity may grow, the least share of the same next token, and the least
# number of right answers beyond the reference's.
LIMITS = {"text": 1.0, "code": 1.0, "next": 93.0, "right": -1.0}


@dataclass(frozen=True)
class Variant:
    """One configuration: its name, vLLM's settings and the environment."""

    name: str
    settings: dict[str, Any]
    environment: dict[str, str]


@dataclass
class Answers:
    """What an engine answers greedily, as token ids, and its loss for each token of what it reads, nats."""

    tokens: list[list[int]]
    loss: dict[str, list[float]] = field(default_factory=dict)


def read(paths: list[Path]) -> list[Variant]:
    """The reference and its variants from their files.

    Raises:
        ValueError: a file is not a mapping.
    """
    variants: list[Variant] = []
    for path in paths:
        own = yaml.safe_load(path.read_text()) or {}
        if not isinstance(own, dict):
            raise ValueError(f"{path} is not a mapping of vLLM's settings")
        environment = {name: str(value) for name, value in own.pop("environment", {}).items()}
        if not variants:
            file = path.with_name("engine.env")
            lines = file.read_text().splitlines() if file.exists() else []
            assignments = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
            environment = dict(assignments) | environment
            variants.append(Variant(path.stem, own, environment))
        else:
            base = variants[0]
            variants.append(Variant(path.stem, base.settings | own, base.environment | environment))
    return variants


class Engine:
    """A running vLLM server, on one core."""

    def __init__(self, variant: Variant, core: int, folder: Path) -> None:
        self.variant = variant
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        configuration = folder / f"{self.port}.yaml"
        configuration.write_text(yaml.safe_dump(variant.settings))
        self.log = folder / f"{self.port}.log"
        command = [str(Path(sys.executable).with_name("vllm")), "serve", "--config", str(configuration)]
        threads = {"VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1"}
        variables = os.environ | threads | variant.environment
        variables = {name: value.replace("{core}", str(core)) for name, value in variables.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", timeout=600, limits=httpx.Limits(max_connections=None)
        )

    async def ready(self) -> float:
        """Wait until it serves; returns the seconds since this was called.

        Raises:
            RuntimeError: it ended, or took too long.
        """
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if (await self.client.get("/health")).is_success:
                    return time.monotonic() - began
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.variant.name} does not start:\n{self.log.read_text()[-3000:]}")

    async def stop(self) -> None:
        """End it and all of its processes."""
        await self.client.aclose()
        processes = self.tree()
        self.process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """Its processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """Proportional set size of its processes, MB."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 1e6

    @property
    def model(self) -> str:
        """The name it serves."""
        return str(self.variant.settings["served-model-name"][0])

    async def stream(self, prompt: list[int], tokens: int) -> list[float]:
        """Complete `prompt` with exactly `tokens` tokens; returns when it began and when each came, s."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
        }
        times = [time.monotonic()]
        async with self.client.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    times.append(time.monotonic())
        return times

    async def complete(self, prompt: str | list[int], tokens: int, **more: Any) -> dict[str, Any]:
        """Complete `prompt` greedily; returns the choice."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}
        response = await self.client.post("/v1/completions", json=body)
        response.raise_for_status()
        return dict(response.json()["choices"][0])


class Prompts:
    """Prompts of random words, the same for every variant, no two alike."""

    def __init__(self) -> None:
        self.random = random.Random(1)  # noqa: S311 - not for secrets

    def take(self, tokens: int) -> list[int]:
        """A prompt of so many tokens."""
        return self.random.choices(VOCABULARY, k=tokens)


async def step(engine: Engine, streams: int, prompts: Prompts) -> float:
    """Milliseconds between two tokens while so many streams run, median."""
    all_times = await asyncio.gather(*(engine.stream(prompts.take(30), 64) for _ in range(streams)))
    # From where all have their first token until the first has its last.
    begin, end = max(times[1] for times in all_times), min(times[-1] for times in all_times)
    gaps = [
        after - before
        for times in all_times
        for before, after in pairwise(times[1:])
        if begin <= before and after <= end
    ]
    return statistics.median(gaps) * 1000


async def users(engines: list[Engine], count: int, length: int, prompts: Prompts, rounds: int = 4) -> float:
    """p95 in ms of 100 tokens for so many users who each send one request after the other."""
    totals: list[float] = []

    async def user(number: int) -> None:
        for turn in range(rounds):
            engine = engines[(number + turn) % len(engines)]
            times = await engine.stream(prompts.take(length), 100)
            totals.append(times[-1] - times[0])

    await asyncio.gather(*map(user, range(count)))
    return sorted(totals)[math.ceil(0.95 * len(totals)) - 1] * 1000


async def cancel(engine: Engine, prompts: Prompts) -> float:
    """Milliseconds that a client who left before the first token costs the next request, at most."""
    alone = min([(times := await engine.stream(prompts.take(8), 1))[1] - times[0] for _ in range(5)])
    longest = 0.0
    for wait in (0.05, 0.1, 0.2, 0.3):
        request = asyncio.create_task(engine.stream(prompts.take(3600), 10))
        await asyncio.sleep(wait)
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        times = await engine.stream(prompts.take(8), 1)
        longest = max(longest, times[1] - times[0] - alone)
    return longest * 1000


async def answer(engine: Engine, questions: list[list[int]], together: int) -> list[list[int]]:
    """The greedy answers as token ids, so many at a time."""
    places = asyncio.Semaphore(together)

    async def one(question: list[int]) -> list[int]:
        async with places:
            choice = await engine.complete(question, ANSWER, return_token_ids=True, ignore_eos=True)
            return list(choice["token_ids"])

    return list(await asyncio.gather(*map(one, questions)))


async def next_tokens(engine: Engine, questions: list[list[int]], answers: list[list[int]]) -> float:
    """The share of the tokens of `answers` that this engine would have said next."""
    agree = total = 0
    for question, tokens in zip(questions, answers, strict=True):
        choice = await engine.complete(question + tokens, 1, prompt_logprobs=1)
        for token, ranked in zip(tokens, choice["prompt_logprobs"][len(question) :], strict=True):
            agree += bool(ranked[str(token)]["rank"] == 1)
            total += 1
    return agree / total


async def loss(engine: Engine, text: str) -> list[float]:
    """Negative log-likelihood of each token of `text`, nats; piece by piece, each without the one before."""
    losses: list[float] = []
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        ranked = await engine.complete(piece, 1, prompt_logprobs=0, return_token_ids=True)
        tokens, positions = ranked["prompt_token_ids"][1:], ranked["prompt_logprobs"][1:]
        losses += [
            -position[str(token)]["logprob"] for token, position in zip(tokens, positions, strict=True)
        ]
    return losses


async def questions(engine: Engine) -> list[list[int]]:
    """The fixed questions as the model's chat template puts them, as token ids."""
    result: list[list[int]] = []
    for line in (SAMPLES / "prompts.txt").read_text().splitlines():
        body = {"model": engine.model, "messages": [{"role": "user", "content": line}]}
        response = await engine.client.post("/tokenize", json=body)
        response.raise_for_status()
        result.append(response.json()["tokens"])
    return result


async def right_answers(engine: Engine) -> int:
    """How many of the ten questions are answered with the word that they ask for."""
    right = 0
    for line in (SAMPLES / "questions.txt").read_text().splitlines():
        question, _, words = line.partition(" = ")
        body = {
            "model": engine.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 40,
        }
        response = await engine.client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        said = response.json()["choices"][0]["message"]["content"].lower()
        right += any(word.lower() in said for word in words.split(", "))
    return right


async def measure_speed(engine: Engine, row: dict[str, float]) -> None:
    """Fill `row` with how quick one engine alone is."""
    prompts = Prompts()
    await engine.stream(prompts.take(600), 20)
    for streams in (1, 5, 8):
        row[f"step{streams}"] = min([await step(engine, streams, prompts) for _ in range(2)])
    first = [await engine.stream(prompts.take(700), 1) for _ in range(5)]
    row["ttft"] = statistics.median(times[1] - times[0] for times in first) * 1000
    row["short"] = await users([engine], 5, 40, prompts)
    row["long"] = await users([engine], 5, 700, prompts)
    row["cancel"] = await cancel(engine, prompts)


async def measure_quality(engine: Engine, reference: Answers | None, row: dict[str, float]) -> Answers:
    """Fill `row` with how good the answers are; returns them."""
    asked = await questions(engine)
    answers = Answers(await answer(engine, asked, 1))
    for name, files in READ.items():
        text = "\n".join((precision.ROOT / file).read_text() for file in files)
        answers.loss[name] = await loss(engine, text[:CHARACTERS])
    reference = reference or answers
    compare(row, answers, reference)
    row["next"] = await next_tokens(engine, asked, reference.tokens) * 100
    row["right"] = await right_answers(engine)
    return answers


def compare(row: dict[str, float], answers: Answers, reference: Answers) -> None:
    """Put into `row` how far `answers` are from those of the reference."""
    for name, losses in answers.loss.items():
        more = [mine - theirs for mine, theirs in zip(losses, reference.loss[name], strict=True)]
        row[name] = math.expm1(statistics.mean(more)) * 100
        row[f"{name}_error"] = statistics.stdev(more) / math.sqrt(len(more)) * 100
    same = [mine == theirs for mine, theirs in zip(answers.tokens, reference.tokens, strict=True)]
    row["same"] = statistics.mean(same) * 100


@contextlib.asynccontextmanager
async def serving(variant: Variant, cores: list[int], folder: Path) -> AsyncIterator[list[Engine]]:
    """Engines of this variant, one on each of the cores, started one after the other as the service does."""
    engines: list[Engine] = []
    try:
        for core in cores:
            engines.append(Engine(variant, core, folder))
            await engines[-1].ready()
        yield engines
    finally:
        for engine in engines:
            await engine.stop()


async def measure(
    variant: Variant, cores: list[int], reference: Answers | None, folder: Path, quality_only: bool
) -> tuple[dict[str, dict[str, float]], Answers]:
    """The rows of one variant, and its answers."""
    row: dict[str, float] = {}
    rows = {variant.name: row}
    began = time.monotonic()
    async with serving(variant, cores[: 1 if quality_only else 2], folder) as engines:
        row["start"] = time.monotonic() - began
        if not quality_only:
            await measure_speed(engines[0], row)
        answers = await measure_quality(engines[0], reference, row)
        if reference is None:
            together = Answers(await answer(engines[0], await questions(engines[0]), 5))
            compare(rows.setdefault(f"{variant.name}, 5 at once", {}), together, answers)
        if len(engines) > 1:
            prompts = Prompts()
            await engines[1].stream(prompts.take(600), 20)
            row["pair_short"] = await users(engines, 5, 40, prompts)
            row["pair_long"] = await users(engines, 5, 700, prompts)
        row["memory"] = statistics.mean(engine.memory() for engine in engines)
    return rows, answers


def precisions(base: Variant) -> list[Variant]:
    """The precisions of the table in precision.py that this machine can serve, the reference first."""
    first = precision.VARIANTS["float32"]
    others = [each for each in precision.VARIANTS.values() if each != first]
    return [
        Variant(
            each.name,
            base.settings | {"model": each.model, "enforce-eager": not each.compiled} | each.settings,
            base.environment | precision.compiled_environment(),
        )
        for each in (first, *others)
        if not each.compiled or precision.compiler()
    ]


def too_bad(rows: dict[str, dict[str, float]]) -> list[str]:
    """Each figure that is worse than LIMITS allow, in words."""
    reference = next(iter(rows.values()))
    lines = []
    for name, row in rows.items():
        for key, limit in LIMITS.items():
            value = row.get(key, 0) - (reference["right"] if key == "right" else 0)
            if key in row and (value > limit if key in ("text", "code") else value < limit):
                lines.append(f"{name}: {key} {value:.2f}, the limit is {limit:g}")
    return lines


def table(rows: dict[str, dict[str, float]]) -> Iterator[str]:
    """The rows as a Markdown table, one line after the other."""
    yield "| configuration | " + " | ".join(heading for _, heading, _ in COLUMNS) + " |"
    yield "| --- " * (len(COLUMNS) + 1) + "|"
    for name, row in rows.items():
        cells = (f"{row[key]:.{digits}f}" if key in row else "" for key, _, digits in COLUMNS)
        yield f"| {name} | " + " | ".join(cells) + " |"


async def main() -> int:
    """Measure what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure engine configurations against each other.")
    parser.add_argument("files", type=Path, nargs="+", help="the reference, then what differs from it")
    parser.add_argument(
        "--json", type=Path, help="keep the figures here; what is in it is not measured again"
    )
    parser.add_argument("--precisions", action="store_true", help="compare those of precision.py")
    parser.add_argument(
        "--quality", action="store_true", help="only the quality, which must be within limits"
    )
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    known: dict[str, Any] = {"rows": {}}
    if arguments.json and arguments.json.exists():
        known = json.loads(arguments.json.read_text())
    rows: dict[str, dict[str, float]] = known["rows"]
    reference = Answers(**known["reference"]) if "reference" in known else None
    failed = 0
    variants = read(arguments.files)
    if arguments.precisions:
        variants = precisions(variants[0])
    for variant in variants:
        if variant.name in rows:
            continue
        print(f"measuring {variant.name}", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                measured, answers = await measure(variant, cores, reference, Path(folder), arguments.quality)
        except (RuntimeError, httpx.HTTPError) as error:
            print(f"duoserve: {variant.name} was not measured: {error}", file=sys.stderr)
            failed = 1
            if reference is None:
                break
            continue
        reference = reference or answers
        rows |= measured
        if arguments.json:
            content = {"rows": rows, "reference": dataclasses.asdict(reference)}
            arguments.json.write_text(json.dumps(content, indent=1))
    print("\n".join(table(rows)))
    if arguments.quality:
        for line in too_bad(rows):
            print(f"duoserve: {line}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
