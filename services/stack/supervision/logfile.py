"""A service's log on disk: rotated, and deleted when it is old."""

import contextlib
import datetime
import io
import os
import time
from pathlib import Path

ROTATE_BYTES = 100_000_000


class LogFile:
    """Appends to FOLDER/NAME.log; daily, and when it is full, that becomes NAME.log.TIME.

    Then, and at the start, rotated logs of all services are deleted: those older than `days`, and the oldest
    ones as long as all logs in FOLDER are larger than `total_bytes`.

    A line that cannot be written, for example because the disk is full, is lost, and the log says so later:
    the service must not wait for its log. A log that was deleted is created again.
    """

    def __init__(
        self, folder: Path, name: str, days: float, total_bytes: float, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._path = folder / f"{name}.log"
        self._days = days
        self._total_bytes = total_bytes
        self._rotate_bytes = rotate_bytes
        self._file: io.FileIO | None = None
        self._size = self._lost = 0
        self._torn = False  # a full disk took only a part of the last line
        with contextlib.suppress(OSError):
            self._open()

    @classmethod
    def of_service(cls, home: Path, name: str) -> "LogFile":
        """The log of a service of the stack at `home`, with the limits in this process's environment."""
        days, total_gb = float(os.environ["LOG_DAYS"]), float(os.environ["LOG_TOTAL_GB"])
        return cls(home / "data" / "logs", name, days, total_gb * 1e9)

    def write(self, line: bytes) -> None:
        """Append one line; it is on disk, not in a buffer, when this returns."""
        try:
            file = self._current(len(line))
            if self._lost:
                note = b"duoserve: %d lines could not be written to this log\n" % self._lost
                line = (b"\n" if self._torn else b"") + note + line
            written = file.write(line)
        except OSError:
            self._lost += 1
            return
        self._size += written
        self._torn = written < len(line)
        self._lost = self._lost + 1 if self._torn else 0

    def _current(self, length: int) -> io.FileIO:
        """The file for the next `length` bytes: rotated, or created again, where needed."""
        if self._file is None or not self._is_there(self._file):
            return self._open()
        now = datetime.datetime.now(datetime.UTC)
        if self._size and (now.date() != self._day or self._size + length > self._rotate_bytes):
            self._path.rename(f"{self._path}.{now:%Y%m%dT%H%M%S.%f}")
            return self._open()
        return self._file

    def _is_there(self, file: io.FileIO) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def _open(self) -> io.FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._file:
            self._file.close()
            self._file = None
        self._file = file = self._path.open("ab", buffering=0)
        status = self._path.stat()
        self._size = status.st_size
        self._day = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC).date()
        try:
            delete_old(self._path.parent, self._days, self._total_bytes, time.time())
        except FileNotFoundError:
            pass  # the guard of another service is deleting, too
        except OSError as error:
            self._size += file.write(f"cannot delete old logs: {error}\n".encode())
        return file


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


class LogStream(io.TextIOBase):
    """A log as a text file, so that it can take the place of a process's standard output."""

    def __init__(self, log: LogFile) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """Append `text`."""
        self._log.write(text.encode(errors="replace"))
        return len(text)
