"""A service's log on disk: rotated, and deleted when it is old."""

import datetime
import time
from pathlib import Path

ROTATE_BYTES = 100_000_000


class LogFile:
    """Appends to FOLDER/NAME.log; daily, and when it is full, that becomes NAME.log.TIME.

    Then, and at the start, rotated logs of all services are deleted: those older than `days`, and the oldest
    ones as long as all logs in FOLDER are larger than `total_bytes`.
    """

    def __init__(
        self, folder: Path, name: str, days: float, total_bytes: float, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.log"
        self._days = days
        self._total_bytes = total_bytes
        self._rotate_bytes = rotate_bytes
        self._open()

    def write(self, line: bytes) -> None:
        """Append one line; it is on disk, not in a buffer, when this returns."""
        now = datetime.datetime.now(datetime.UTC)
        if self._size and (now.date() != self._day or self._size + len(line) > self._rotate_bytes):
            self._file.close()
            self._path.rename(f"{self._path}.{now:%Y%m%dT%H%M%S.%f}")
            self._open()
        self._size += self._file.write(line)

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
        changed = self._path.stat().st_mtime
        self._day = datetime.datetime.fromtimestamp(changed, datetime.UTC).date()
        try:
            delete_old(self._path.parent, self._days, self._total_bytes, time.time())
        except FileNotFoundError:
            pass  # the guard of another service is deleting, too
        except OSError as error:
            self._size += self._file.write(f"cannot delete old logs: {error}\n".encode())


def delete_old(folder: Path, days: float, total_bytes: float, now: float) -> None:
    """Delete the rotated service logs in `folder` that are older than `days` or, oldest first, too many.

    The logs being written and the router's request log, which the router deletes itself, are not deleted, but
    are part of the total. `now` is in seconds since the epoch.
    """
    logs = {path: path.stat() for path in folder.iterdir() if ".log" in path.name or ".jsonl" in path.name}
    total = sum(status.st_size for status in logs.values())
    for path, status in sorted(logs.items(), key=lambda log: log[1].st_mtime):
        old = status.st_mtime < now - days * 86400 or total > total_bytes
        if old and ".log." in path.name:
            path.unlink(missing_ok=True)
            total -= status.st_size
