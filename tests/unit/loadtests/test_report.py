from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtests.judge import slo
from loadtests.judge.capacity import Capacity, Level, bottleneck
from loadtests.measure.engines import EngineFigures
from loadtests.measure.sample import Sample
from loadtests.measure.stage import GeneratorHealth, Stage
from loadtests.report import page, results
from loadtests.report.changes import changes, regressions
from loadtests.report.results import Run
from loadtests.settings import Target

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-this-must-not-be-written-anywhere"


def measured(factor: float = 1.0) -> Run:
    run = Run.begin(Target("http://127.0.0.1:1", KEY, "cpu", {}), "completion", seed=1)
    run.started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    run.notes.append("<b>note</b>")
    for users in (1, 5):
        found = [
            Sample(
                "completion",
                float(i),
                users=users,
                ttft=(100 + i % 40) * factor,
                total=(900 + i % 90) * factor,
                itl=[20.0] * 9,
                completion_tokens=60,
                queue_wait=float(users),
                text="secret prompt",
            )
            for i in range(90)
        ]
        found.append(Sample("completion", 1.0, "rejected", "<script>alert(1)</script>", users=users))
        run.stages.append(Stage(users, 0, 90, found, GeneratorHealth(cpu=0.1)))
    ratio = {"value": 1.1, "low": 1.05, "high": 1.2, "count": 12}
    metrics = {"TTFT, median": {"direct": 100.0, "router": 110.0, "unit": "ms", "ratio": ratio}}
    run.overhead = [{"streams": 1, "rounds": 3, "metrics": metrics}]
    run.relay = [{"name": "direct", "chunks_per_second": 30000.0, "cpu_ms_per_1000": 0.0}]
    run.starts = [{"name": "first start", "seconds": 60.0}]
    run.finish(slo.load("blackwell-96gb"), {})
    return run


def test_page_needs_nothing_from_outside_and_keeps_secrets(tmp_path: Path) -> None:
    page.write(tmp_path, measured())
    html = (tmp_path / "report.html").read_text()
    # Names of XML namespaces are no addresses that a browser asks for.
    loads = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!#)[^"']*|@import|url\(\s*["']?(?!#)[^)]*|<script|<link""", html
    )
    assert loads == []
    assert html.count("<svg") >= 7
    assert "prefers-color-scheme: dark" in html
    assert "&lt;b&gt;note" in html
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()
        assert "secret prompt" not in path.read_text()


def test_results_can_be_read_again(tmp_path: Path) -> None:
    run = measured()
    page.write(tmp_path, run)
    again = results.read(tmp_path / "results.json")
    assert again.as_json() == run.as_json()
    assert again.as_json()["schema"] == results.SCHEMA
    assert page.markdown(again) == page.markdown(run)
    assert "❌" not in page.markdown(again).split("## Objectives")[0]
    assert "95 % interval" in page.markdown(again)


def test_results_of_earlier_versions_can_still_be_read() -> None:
    for path in (ROOT / "docs" / "benchmarks").glob("*/results.json"):
        assert results.read(path).as_json() == json.loads(path.read_text())


def test_a_run_without_any_answer_still_has_a_report() -> None:
    run = measured()
    for stage in run.stages:
        stage.samples = [sample for sample in stage.samples if not sample.ok]
    run.finish(slo.load("blackwell-96gb"), {})
    assert "rejected" in page.page(run)


def test_a_capacity_is_drawn_and_read_again() -> None:
    run, objectives = measured(), slo.load("blackwell-96gb")
    levels = []
    for load, stage in zip((5.0, 8.0), run.stages, strict=True):
        stage.users, stage.engines = int(load), {"coder": EngineFigures(90, 1.0, 100.0 * load, 20.0, 0.5, 0)}
        judged = slo.chances([stage], "completion", replace(objectives, users=stage.users), {})
        levels.append(Level.of(load, stage, judged))
    breaks = bottleneck(levels, 5)
    run.capacity = Capacity("users", 5, 5, 5, 7, levels, breaks)
    text = page.page(run)
    assert "5 users (95 % interval 5-7)" in text and "<figcaption>Capacity</figcaption>" in text
    assert "reading prompts of coder: 500 -&gt; 800 ms an answer" in text
    assert Run.from_json(json.loads(json.dumps(run.as_json()))).as_json() == run.as_json()
    run.capacity, run.stages = Capacity("users", 5, 0, 0, None, stopped="saturated"), []
    assert "not known" in page.page(run) and "saturated" in page.page(run)


@pytest.mark.parametrize(
    ("content", "says"), [("", "not JSON"), ("{}", "not a results.json"), ('{"schema": 99}', "schema 99")]
)
def test_unusable_results_are_named(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(results.ResultsError, match=says):
        results.read(path)


def test_compare_flags_only_what_is_beyond_noise(tmp_path: Path) -> None:
    old, same, slower = measured(), measured(1.03), measured(1.5)
    assert regressions(changes(old, same)) == []
    found = regressions(changes(old, slower))
    assert {change.name for change in found} == {
        f"completion {metric}, median, {users}"
        for metric in ("TTFT", "end to end")
        for users in ("1 user", "5 users")
    }
    assert all(change.ratio.value == pytest.approx(1.5, rel=0.02) for change in found)
    assert "SLOWER" in page.markdown(slower, old)
