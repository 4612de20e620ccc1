import os
import time
from pathlib import Path

from services.stack.logfile import KEEP_DAYS, LogFile

DAY = 86_400


def test_what_is_written_is_on_disk_at_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "router")
    log.write(b"one\n")
    log.write(b"two\n")
    assert (tmp_path / "router.log").read_bytes() == b"one\ntwo\n"


def test_a_full_file_is_rotated_and_nothing_is_lost(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "router", rotate_bytes=25)
    for number in range(10):
        log.write(b"line %d....\n" % number)
    files = sorted(tmp_path.glob("router-*.log"), key=lambda path: path.stat().st_mtime_ns)
    text = b"".join(path.read_bytes() for path in [*files, tmp_path / "router.log"])
    assert text == b"".join(b"line %d....\n" % number for number in range(10))
    assert all(path.stat().st_size <= 25 for path in tmp_path.iterdir())


def test_yesterdays_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "router.log"
    path.write_bytes(b"yesterday\n")
    os.utime(path, (time.time() - DAY, time.time() - DAY))
    LogFile(tmp_path, "router").write(b"today\n")
    assert path.read_bytes() == b"today\n"
    (rotated,) = tmp_path.glob("router-*.log")
    assert rotated.read_bytes() == b"yesterday\n"


def test_old_files_and_those_over_the_total_go_oldest_first(tmp_path: Path) -> None:
    ages = {"a": KEEP_DAYS + 1, "b": 3, "c": 2, "d": 1}
    for name, days in ages.items():
        path = tmp_path / f"{name}-20260101T000000.0.log"
        path.write_bytes(b"x" * 10)
        os.utime(path, (time.time() - days * DAY, time.time() - days * DAY))
    log = LogFile(tmp_path, "router", rotate_bytes=5, keep_bytes=26)
    log.write(b"123\n")
    log.write(b"456\n")
    left = {path.name[0] for path in tmp_path.glob("?-*.log")}
    assert left == {"c", "d"}
    assert (tmp_path / "router.log").read_bytes() == b"456\n"
