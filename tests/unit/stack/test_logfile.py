import os
import time
from pathlib import Path

from services.stack.supervision.logfile import LogFile

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
    files = sorted(tmp_path.glob("router.log.*"), key=lambda path: path.stat().st_mtime_ns)
    text = b"".join(path.read_bytes() for path in [*files, tmp_path / "router.log"])
    assert text == b"".join(b"line %d....\n" % number for number in range(10))
    assert all(path.stat().st_size <= 25 for path in tmp_path.iterdir())


def test_yesterdays_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "router.log"
    path.write_bytes(b"yesterday\n")
    os.utime(path, (time.time() - DAY, time.time() - DAY))
    LogFile(tmp_path, "router").write(b"today\n")
    assert path.read_bytes() == b"today\n"
    (rotated,) = tmp_path.glob("router.log.*")
    assert rotated.read_bytes() == b"yesterday\n"
