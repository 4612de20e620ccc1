"""Measures engine configurations against each other: speed, memory, and the quality of the answers.

Run in the engine environment, on a machine with nothing else to do:

    python -m services.engine.tuning config/engines/cpu/coder.yaml [VARIANT.yaml ...]
    python -m services.engine.tuning config/engines/cpu/coder.yaml --precisions [--quality]

The first file is the reference; a variant says only what differs from it. Each is served by vLLM itself, by
two engines on two cores as in the service; one is measured alone, then both together. A variant's key
`environment` holds environment variables; the profile's engine.env applies to all.

`--precisions` compares those of precision.py, with float32 as the reference. `--quality` leaves out the speed
and needs one core only; the exit status is 1 when a variant is worse than the limits in quality.py allow.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from services.engine import precision
from services.engine.quality import Answers, answer, compare, measure_quality, questions, too_bad
from services.engine.server import Engine, Variant, read, serving

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
            base.environment | precision.caches(),
        )
        for each in (first, *others)
        if not each.compiled or precision.compiler()
    ]


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
