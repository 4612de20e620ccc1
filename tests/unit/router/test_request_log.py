import json
import os
import time
from pathlib import Path

import pytest

from router import request_log
from router.request_log import RequestLog, old_logs

DAY = 86400


def log(folder: Path, name: str, size: int, age_days: float, now: float) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    os.utime(path, (now - age_days * DAY,) * 2)
    return path


def test_a_line_is_an_object(tmp_path: Path) -> None:
    requests = RequestLog(tmp_path / "logs", 7, 1e9)
    requests.write({"status": 200})
    requests.write({"status": 404})
    requests.close()
    lines = (tmp_path / "logs" / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == [200, 404]


def test_a_large_log_goes_on_in_a_new_file_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_ROTATE_BYTES", 100)
    requests = RequestLog(tmp_path, 7, 1e9)
    for number in range(50):
        requests.write({"number": number})
    requests.close()
    files = list(tmp_path.iterdir())
    assert len(files) > 5
    assert all(file.stat().st_size < 200 for file in files)
    lines = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == list(range(50))


def test_old_logs_go_first_by_age_then_by_size(tmp_path: Path) -> None:
    now = 1e9
    current = log(tmp_path, "requests.jsonl", 300, 30, now)
    log(tmp_path, "router.log", 200, 30, now)  # deleted by those that write them, but part of the total
    log(tmp_path, "coder.log.1", 100, 9, now)
    old = log(tmp_path, "requests.jsonl.2026-11-15", 10, 8, now)
    large = log(tmp_path, "requests.jsonl.2026-11-20", 600, 3, now)
    log(tmp_path, "requests.jsonl.2026-11-22", 100, 1, now)
    log(tmp_path, "notes.txt", 10_000, 99, now)
    assert old_logs(current, days=7, total_bytes=1000, now=now) == [old, large]
    old.unlink()
    large.unlink()
    assert old_logs(current, days=7, total_bytes=1000, now=now) == []


def test_a_rotation_deletes_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_ROTATE_BYTES", 100)
    old = log(tmp_path, "requests.jsonl.2026-11-01", 10, 8, time.time())
    requests = RequestLog(tmp_path, 7, 300)
    for number in range(50):
        requests.write({"number": number})
    requests.close()
    assert not old.exists()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 500
    last = (tmp_path / "requests.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["number"] == 49
