from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from loadtests.measure.power import PowerWatch
from loadtests.measure.sample import Sample
from loadtests.measure.stage import Stage
from loadtests.report import tables
from loadtests.report.results import Run
from tests.support.waiting import wait_for


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the watch sees: [0] until somebody changes it."""
    now = [0.0]
    monkeypatch.setattr("loadtests.measure.power.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def zone(folder: Path, number: str, name: str, microjoules: int, most: int = 10**9) -> None:
    path = folder / f"intel-rapl:{number}"
    path.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{value}\n")


def test_the_packages_counters_are_added_up(tmp_path: Path, clock: list[float]) -> None:
    watch = PowerWatch(tmp_path)
    for number, name in (("0", "package-0"), ("1", "package-1"), ("2", "psys"), ("0:0", "core")):
        zone(tmp_path, number, name, 1_000_000)
    watch.start()
    clock[0] = 10
    zone(tmp_path, "0", "package-0", 301_000_000)
    zone(tmp_path, "1", "package-1", 101_000_000)
    zone(tmp_path, "2", "psys", 900_000_000)
    zone(tmp_path, "0:0", "core", 200_000_000)
    assert watch.stop() == pytest.approx(40)


def test_a_counter_that_starts_again(tmp_path: Path, clock: list[float]) -> None:
    watch = PowerWatch(tmp_path)
    zone(tmp_path, "0", "package-0", 90_000_000, most=99_999_999)
    watch.start()
    clock[0] = 10
    zone(tmp_path, "0", "package-0", 40_000_000, most=99_999_999)
    assert watch.stop() == pytest.approx(5)


def test_every_gpu_counts(tmp_path: Path, programs: Path, clock: list[float]) -> None:
    said = tmp_path / "said"
    script = (
        f"#!/bin/sh\nprintf '0, 100.5\\n1, 50\\n0, 99.5\\n1, [N/A]\\n0, 7'\n: > {said}\nwhile :; do :; done\n"
    )
    (programs / "nvidia-smi").write_text(script)
    (programs / "nvidia-smi").chmod(0o755)
    watch = PowerWatch(tmp_path / "none")
    watch.start()
    wait_for(said.exists, "the readings")
    clock[0] = 10
    assert watch.stop() == pytest.approx((100.5 + 99.5) / 2 + 50)


def test_a_machine_that_does_not_tell(tmp_path: Path, clock: list[float]) -> None:
    watch = PowerWatch(tmp_path / "none")
    watch.start()
    assert watch.stop() is None


def test_the_report_shows_energy_where_it_was_measured() -> None:
    run = Run("mixed", 1, "cpu", {}, {}, {}, "")
    found = [Sample("chat", 0.0, total=10_000.0, completion_tokens=800)]
    run.stages = [Stage(1, 0, 36, found, watts=200.0), Stage(5, 0, 36, found)]
    (section,) = (section for section in tables.sections(run) if section.title == "Energy")
    assert section.table.rows == [("1 user", "200 W", "2.00 Wh", "0.11")]
    assert Stage.from_json(run.stages[0].as_json()).watts == 200
