"""`./run loadtest --find-capacity` tells what breaks first, in the unit of the load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mock_engine import MockEngine
from tests.support import queueing
from tests.support.loadtest import FIND_CAPACITY, TOKENS_PER_SECOND, capacity_in, loadtest


@pytest.mark.parametrize(
    ("knobs", "cause"),
    [
        ({"kv_tokens": 4000, "read_tokens_per_s": TOKENS_PER_SECOND, "itl_ms": 8}, "KV cache"),
        ({"read_tokens_per_s": 7000.0, "itl_ms": 2}, "reading prompts"),
    ],
)
def test_the_engines_own_metrics_say_what_breaks_first(
    tmp_path: Path, knobs: dict[str, Any], cause: str
) -> None:
    promised = queueing.objectives(tmp_path, limit=350, users=12)
    report = tmp_path / "reports"
    with MockEngine(completion_tokens=200, **knobs) as engine:
        done = loadtest(engine.url, report, *FIND_CAPACITY, "--budget", "20", "--slo", str(promised))
    found = capacity_in(report)
    assert done.returncode == 1, done.stdout + done.stderr  # fewer than the twelve users of its objectives
    assert (found["breaks"]["cause"], found["breaks"]["engine"]) == (cause, "coder"), done.stdout


def test_an_open_loop_is_told_in_requests_per_second(tmp_path: Path) -> None:
    promised = queueing.objectives(tmp_path, limit=350, users=5)
    report = tmp_path / "reports"
    with MockEngine(slots=1, itl_ms=5, completion_tokens=200) as engine:
        done = loadtest(
            engine.url, report, *FIND_CAPACITY, "--rate", "8", "--budget", "15", "--slo", str(promised)
        )
    found = capacity_in(report)
    assert found["unit"] == "requests per second" and "requests per second" in done.stdout
    assert found["levels"][-1]["load"] == 8  # one slot serves fewer than three
    assert found["high"] < 8 and done.returncode == 1
