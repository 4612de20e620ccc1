"""`./run loadtest --find-capacity`: the answer is the one that slots, reading speed and step time give."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadtests.judge import slo
from mock_engine import MockEngine
from tests.support import queueing
from tests.support.loadtest import FIND_CAPACITY, TOKENS_PER_SECOND, capacity_in, loadtest
from tests.support.queueing import QueueModel, search

LIMIT = 500.0
ANSWER, PAUSE = (0.6, 1.2), (0.5, 3.0)  # 50 to 100 tokens at 12 ms
MODELS = {
    "4 slots": QueueModel(4, (0.03, 0.03), ANSWER, PAUSE),
    "8 slots": QueueModel(8, (0.03, 0.03), ANSWER, PAUSE),
    "4 slots, no pauses": QueueModel(4, (0.03, 0.03), ANSWER, (0, 0)),
    "slow reading": QueueModel(64, (0.2, 0.3), ANSWER, PAUSE),
}


def test_the_model_waits_as_theory_says() -> None:
    """Users beyond the slots, without pauses, wait for as many turns as there are of them to a slot."""
    model = QueueModel(4, (0.05, 0.05), (0.95, 0.95), (0, 0))
    for users, wait in ((4, 0), (6, 500), (8, 1000)):
        times = [s.ttft or 0.0 for s in model.samples(users, 2000, Random(1))]
        assert sum(times) / len(times) == pytest.approx(wait + 50, rel=0.15)


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_the_computed_one_within_one_user(name: str, tmp_path: Path) -> None:
    promised = slo.load("gpu", queueing.objectives(tmp_path, limit=LIMIT, users=5))
    truth = MODELS[name].capacity(LIMIT)
    found = [search(MODELS[name], promised, f"{name}/{seed}") for seed in range(20)]
    told = [str(each) for each in found]
    assert all(abs(each.value - truth) <= 1 for each in found), (truth, told)
    assert sum(each.low <= truth and (each.high or truth) >= truth for each in found) >= 19, (truth, told)
    # It stops when it knows.
    assert all(each.stopped or (each.high or 0) - each.low <= 1 for each in found), told
    assert all(len(each.levels) < 20 for each in found)


def test_an_open_loop_finds_the_rate(tmp_path: Path) -> None:
    promised = slo.load("gpu", queueing.objectives(tmp_path, limit=LIMIT, users=5))
    model = MODELS["4 slots"]
    for seed in range(5):
        found = search(model, promised, f"rate/{seed}", rate=1.0)
        below, above = (model.late(LIMIT, 1, rate=found.value * factor) for factor in (1 / 1.2, 1.2))
        assert below < 0.05 < above, str(found)


def test_the_capacity_of_a_mock_engine_is_found(tmp_path: Path) -> None:
    """Completions of 50 to 100 tokens, whose prompts have about 700, without pauses."""
    model = QueueModel(4, (700 / TOKENS_PER_SECOND,) * 2, (0.3, 0.6), (0, 0))
    truth = model.capacity(450)
    promised = queueing.objectives(tmp_path, limit=450, users=3)
    report = tmp_path / "reports"
    with MockEngine(slots=4, read_tokens_per_s=TOKENS_PER_SECOND, itl_ms=6, completion_tokens=200) as engine:
        done = loadtest(engine.url, report, *FIND_CAPACITY, "--budget", "60", "--slo", str(promised))
    found = capacity_in(report)
    assert abs(found["value"] - truth) <= 1, done.stdout + done.stderr
    assert done.returncode == 0  # at least the three users of its objectives
    assert f"Capacity: {found['value']:g} users (95 % interval" in done.stdout
    assert found["breaks"]["cause"] == "queue", done.stdout
    (folder,) = report.iterdir()
    page, summary = ((folder / name).read_text() for name in ("report.html", "report.md"))
    assert f"{found['value']:g} users (95 % interval" in page and "<figcaption>Capacity</figcaption>" in page
    assert "## Capacity" in summary and "What breaks first" in summary


@pytest.mark.parametrize("options", [("--suite", "burst"), ("--users", "1,5")])
def test_what_has_no_capacity_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = loadtest("http://127.0.0.1:1", tmp_path, "--find-capacity", *options)
    assert done.returncode == 64
    assert "--find-capacity" in done.stderr.splitlines()[-1]
