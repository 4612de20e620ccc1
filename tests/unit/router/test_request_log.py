import json
import os
from pathlib import Path

import pytest

from router import logs
from router.logs import RequestLog, sweep

DAY = 86400


def log(folder: Path, name: str, size: int, age_days: float, now: float) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    os.utime(path, (now - age_days * DAY,) * 2)
    return path


def test_a_line_is_an_object(tmp_path: Path) -> None:
    requests = RequestLog(tmp_path / "logs")
    requests.write({"status": 200})
    requests.write({"status": 404})
    requests.close()
    lines = (tmp_path / "logs" / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == [200, 404]


def test_a_large_log_goes_on_in_a_new_file_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 100)
    requests = RequestLog(tmp_path)
    for number in range(50):
        requests.write({"number": number})
    requests.close()
    files = list(tmp_path.iterdir())
    assert len(files) > 5
    assert all(file.stat().st_size < 200 for file in files)
    lines = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == list(range(50))
    assert sweep(tmp_path, days=7, total_bytes=300, now=1e9), "rotated files are not known as logs"


def test_old_logs_go_first_by_age_then_by_size(tmp_path: Path) -> None:
    now = 1e9
    current = log(tmp_path, "router.log", 500, 30, now)
    old = log(tmp_path, "router.log.2", 10, 8, now)
    large = log(tmp_path, "requests.jsonl.2026-11-20", 600, 3, now)
    young = log(tmp_path, "engine.log.1", 100, 1, now)
    other = log(tmp_path, "notes.txt", 10_000, 99, now)
    assert sweep(tmp_path, days=7, total_bytes=1000, now=now) == [old, large]
    assert current.exists()
    assert young.exists()
    assert other.exists()
    assert sweep(tmp_path, days=7, total_bytes=1000, now=now) == []
