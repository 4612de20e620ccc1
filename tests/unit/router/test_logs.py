import json
import os
from pathlib import Path

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
