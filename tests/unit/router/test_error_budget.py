"""The counts of 30 days."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from router import error_budget
from router.error_budget import ErrorBudget

TODAY = date(2026, 11, 28)


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    set_today(monkeypatch, TODAY)


def set_today(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    monkeypatch.setattr(error_budget, "_today", lambda: day)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    budget = ErrorBudget(tmp_path / "logs")
    for kept in (True, True, False):
        budget.add("coder", "ttft", kept)
    budget.close()
    again = ErrorBudget(tmp_path / "logs")
    again.add("coder", "ttft", False)
    assert again.requests() == {("coder", "ttft", True): 2, ("coder", "ttft", False): 2}
    assert again.since() == datetime(2026, 11, 28, tzinfo=UTC)


def test_a_kill_forgets_only_the_last_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_budget, "_WRITE_SECONDS", 0.0)
    ErrorBudget(tmp_path).add("coder", "ttft", True)
    assert ErrorBudget(tmp_path).requests() == {("coder", "ttft", True): 1}


def test_days_leave_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = ErrorBudget(tmp_path)
    budget.add("coder", "ttft", False)
    set_today(monkeypatch, TODAY + timedelta(days=29))
    budget.add("coder", "ttft", True)
    assert budget.requests() == {("coder", "ttft", False): 1, ("coder", "ttft", True): 1}
    set_today(monkeypatch, TODAY + timedelta(days=30))
    assert budget.requests() == {("coder", "ttft", True): 1}
    assert budget.since() == datetime(2026, 12, 27, tzinfo=UTC)
    budget.close()
    assert "2026-11-28" not in (tmp_path / "promises.json").read_text()
    set_today(monkeypatch, TODAY + timedelta(days=99))
    assert not ErrorBudget(tmp_path).requests() and ErrorBudget(tmp_path).since() is None


@pytest.mark.parametrize("text", ["", "[[1]]", '{"a": 1}', '[["yesterday", "coder", "ttft", true, 1]]', "[1"])
def test_a_file_that_cannot_be_read_is_replaced(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "promises.json").write_text(text)
    budget = ErrorBudget(tmp_path)
    assert "begin anew" in caplog.text
    budget.add("coder", "ttft", True)
    budget.close()
    assert ErrorBudget(tmp_path).requests() == {("coder", "ttft", True): 1}


def test_a_full_disk_is_told_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("in the way of the folder")
    budget = ErrorBudget(tmp_path / "logs")
    budget.add("coder", "ttft", True)
    budget.close()
    assert "could not be written" in caplog.text
    assert budget.requests() == {("coder", "ttft", True): 1}
