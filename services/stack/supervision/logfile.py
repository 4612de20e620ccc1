"""A service's log file, with rotation. The router deletes the old logs (LOG_DAYS, LOG_TOTAL_GB)."""

import datetime
from pathlib import Path

ROTATE_BYTES = 100_000_000


class LogFile:
    """Appends to FOLDER/NAME.log, and renames it to NAME.log.TIME daily and when it is full.

    The handlers in logging.handlers rotate either daily or by size, but not both.
    """

    def __init__(self, folder: Path, name: str, rotate_bytes: int = ROTATE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.log"
        self._rotate_bytes = rotate_bytes
        self._open()

    def write(self, line: bytes) -> None:
        """Append one line, unbuffered."""
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
