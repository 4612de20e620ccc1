import os
import time
from pathlib import Path

from services.stack.supervision.logfile import LogFile, delete_old

DAY = 86_400


def test_what_is_written_is_on_disk_at_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "router", 7, 1e9)
    log.write(b"one\n")
    log.write(b"two\n")
    assert (tmp_path / "router.log").read_bytes() == b"one\ntwo\n"


def test_a_full_file_is_rotated_and_nothing_is_lost(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "router", 7, 1e9, rotate_bytes=25)
    for number in range(10):
        log.write(b"line %d....\n" % number)
    files = sorted(tmp_path.glob("router.log.*"), key=lambda path: path.stat().st_mtime_ns)
    text = b"".join(path.read_bytes() for path in [*files, tmp_path / "router.log"])
    assert text == b"".join(b"line %d....\n" % number for number in range(10))
    assert all(path.stat().st_size <= 25 for path in tmp_path.iterdir())


def test_yesterdays_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "router.log"
    path.write_bytes(b"yesterday\n")
    os.utime(path, (time.time() - DAY, time.time() - DAY))
    LogFile(tmp_path, "router", 7, 1e9).write(b"today\n")
    assert path.read_bytes() == b"today\n"
    (rotated,) = tmp_path.glob("router.log.*")
    assert rotated.read_bytes() == b"yesterday\n"


def log(folder: Path, name: str, size: int, age_days: float) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age_days * DAY,) * 2)
    return path


def test_old_logs_go_first_by_age_then_by_size(tmp_path: Path) -> None:
    current = log(tmp_path, "coder.log", 500, 30)
    requests = log(tmp_path, "requests.jsonl.2026-11-20", 300, 9)
    old = log(tmp_path, "router.log.2", 10, 8)
    large = log(tmp_path, "coder-2.log.20261120T000000.0", 600, 3)
    young = log(tmp_path, "coder.log.1", 100, 1)
    other = log(tmp_path, "notes.txt", 10_000, 99)
    delete_old(tmp_path, days=7, total_bytes=1000, now=time.time())
    assert not old.exists() and not large.exists()
    assert current.exists() and requests.exists() and young.exists() and other.exists()


def test_a_rotation_deletes_old_logs_of_every_service(tmp_path: Path) -> None:
    writing = LogFile(tmp_path, "router", 7, 1e9, rotate_bytes=10)
    old = log(tmp_path, "coder-2.log.1", 10, 8)
    writing.write(b"one line\n")
    assert old.exists()
    writing.write(b"another line\n")
    assert not old.exists()


def test_what_cannot_be_deleted_is_in_the_log_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "coder.log.1").mkdir()
    os.utime(tmp_path / "coder.log.1", (0, 0))
    LogFile(tmp_path, "router", 7, 1e9).write(b"goes on\n")
    text = (tmp_path / "router.log").read_text()
    assert "cannot delete old logs" in text and text.endswith("\ngoes on\n")


def test_a_deleted_log_is_created_again(tmp_path: Path) -> None:
    writing = LogFile(tmp_path / "logs", "router", 7, 1e9, rotate_bytes=25)
    path = tmp_path / "logs" / "router.log"
    for number in range(10):
        path.unlink()
        writing.write(b"line %d....\n" % number)
        assert path.read_bytes() == b"line %d....\n" % number
    path.unlink()
    path.parent.rmdir()
    writing.write(b"and its folder\n")
    assert path.read_bytes() == b"and its folder\n"


def test_a_log_that_cannot_be_written_loses_lines_and_says_so_later(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file where the folder should be")
    writing = LogFile(folder, "router", 7, 1e9)
    writing.write(b"one\n")
    writing.write(b"two\n")
    folder.unlink()
    writing.write(b"three\n")
    writing.write(b"four\n")
    text = (folder / "router.log").read_text()
    assert text == "duoserve: 2 lines could not be written to this log\nthree\nfour\n"
