from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loadtests import compare, report, results, slo
from loadtests.client import Sample
from loadtests.settings import Service
from loadtests.stage import Health, Stage

KEY = "sk-this-must-not-be-written-anywhere"


def measured(factor: float = 1.0) -> dict[str, Any]:
    stages = []
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
        stages.append(Stage(users, 0, 90, found, Health(cpu=0.1)))
    ratio = {"value": 1.1, "low": 1.05, "high": 1.2, "count": 12}
    metrics = {"TTFT, median": {"direct": 100.0, "router": 110.0, "unit": "ms", "ratio": ratio}}
    return results.collect(
        Service("http://127.0.0.1:1", KEY, "cpu", {}),
        suite="completion",
        seed=1,
        stages=stages,
        promises=slo.judge(stages, "completion", slo.promises(), {}),
        verdicts=slo.judge(stages, "completion", slo.load("blackwell-96gb"), {}),
        notes=["<b>note</b>"],
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        more={
            "overhead": [{"streams": 1, "rounds": 3, "metrics": metrics}],
            "relay": [{"name": "direct", "chunks_per_second": 30000.0, "cpu_ms_per_1000": 0.0}],
            "starts": [{"name": "first start", "seconds": 60.0}],
        },
    )


def test_page_needs_nothing_from_outside_and_keeps_secrets(tmp_path: Path) -> None:
    report.write(tmp_path, measured())
    page = (tmp_path / "report.html").read_text()
    # Names of XML namespaces are no addresses that a browser asks for.
    loads = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!#)[^"']*|@import|url\(\s*["']?(?!#)[^)]*|<script|<link""", page
    )
    assert loads == []
    assert page.count("<svg") >= 7
    assert "prefers-color-scheme: dark" in page
    assert "&lt;b&gt;note" in page
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()
        assert "secret prompt" not in path.read_text()


def test_results_can_be_read_again(tmp_path: Path) -> None:
    data = measured()
    report.write(tmp_path, data)
    again = results.read(tmp_path / "results.json")
    assert again["schema"] == results.SCHEMA
    assert report.markdown(again) == report.markdown(data)
    assert "❌" not in report.markdown(again).split("## Objectives")[0]
    assert "95 % interval" in report.markdown(again)


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
    assert compare.regressions(compare.changes(old, same)) == []
    found = compare.regressions(compare.changes(old, slower))
    assert {change.name for change in found} == {
        f"completion {metric}, median, {users}"
        for metric in ("TTFT", "end to end")
        for users in ("1 user", "5 users")
    }
    assert all(change.ratio.value == pytest.approx(1.5, rel=0.02) for change in found)
    assert "SLOWER" in report.markdown(slower, old)
    assert json.dumps(slower)
