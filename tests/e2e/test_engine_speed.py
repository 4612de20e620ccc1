"""What keeps the CPU engine quick, as ratios measured in one run (figures: docs/benchmarks/cpu-tuning.md)."""

import contextlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from services.engine.precision import PREPARED, VARIANTS, Variant
from services.stack.environments import BY_NAME
from tests.support import ROOT
from tests.support.stack import Stack


def prompt(tokens: int) -> list[int]:
    """Token ids that no prefix cache knows."""
    return random.choices(range(1000, 40000), k=tokens)


def complete(stack: Stack, length: int, tokens: int, **more: object) -> float:
    """Seconds for exactly `tokens` tokens from the coder's engine itself."""
    body = {"model": "coder", "prompt": prompt(length), "max_tokens": tokens, "ignore_eos": True, **more}
    began = time.monotonic()
    httpx.post(f"{stack.engines['coder']}/v1/completions", json=body, timeout=600).raise_for_status()
    return time.monotonic() - began


def five_at_once(stack: Stack, **more: object) -> float:
    with ThreadPoolExecutor(5) as pool:
        began = time.monotonic()
        list(pool.map(lambda _: complete(stack, 20, 40, **more), range(5)))
        return time.monotonic() - began


def test_sampling_is_not_what_a_step_spends_its_time_on(stack: Stack) -> None:
    # Measured: 1.1. With top_p, which sorts the vocabulary, 1.6 and more.
    rounds = [(five_at_once(stack, temperature=0.7), five_at_once(stack)) for _ in range(4)]
    assert min(sampled for sampled, _ in rounds) < 1.4 * min(greedy for _, greedy in rounds)


def test_a_client_that_leaves_before_the_first_token_frees_the_engine(stack: Stack) -> None:
    # Measured: 0.1, the one step that is under way. With vLLM's own size of a step 0.5 to 1.
    alone = min(complete(stack, 8, 1) for _ in range(3))
    whole = min(complete(stack, 3600, 1) for _ in range(2))

    def after_a_cancel() -> float:
        with contextlib.suppress(httpx.TimeoutException):
            body = {"model": "coder", "prompt": prompt(3600), "max_tokens": 50}
            httpx.post(
                f"{stack.engines['coder']}/v1/completions",
                json=body,
                timeout=httpx.Timeout(10, read=whole / 8),
            )
        return complete(stack, 8, 1) - alone

    assert min(after_a_cancel() for _ in range(3)) < whole / 3


def served(stack: Stack) -> Variant:
    """The precision in which the coder's engine really runs."""
    lines = [process.cmdline() for process in stack.processes("coder")]
    (command,) = [line for line in lines if "serve" in line and "--dtype" in line]
    model, dtype = command[command.index("serve") + 1], command[command.index("--dtype") + 1]
    found = (model, dtype, "--no-enforce-eager" in command)
    (variant,) = [v for v in VARIANTS.values() if (v.model, v.settings["dtype"], v.compiled) == found]
    return variant


def test_no_other_precision_has_a_much_quicker_step_on_this_cpu(stack: Stack) -> None:
    # Measured with the wrong one on a CPU without AVX-512: 2 and more.
    threads = max(1, len(os.sched_getaffinity(0)) // len(stack.engines))
    chosen = served(stack).name
    # The chosen one first: a compiled one is then found in the cache, as an engine has it.
    names = list(dict.fromkeys([chosen, *(variant.name for variant in PREPARED)]))
    measured = subprocess.run(
        [str(BY_NAME["engine"].python), "-m", "services.engine.precision", "--measure", *names],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    assert measured.returncode == 0, measured.stderr
    steps = {name: f["step_1_ms"] + f["step_5_ms"] for name, f in json.loads(measured.stdout).items()}
    assert set(steps) == set(names)
    assert steps[chosen] < 1.3 * min(steps.values()), steps
