"""The request log: rotated, and deleted when it is old."""

import json
import logging
import time
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from typing import Any

_ROTATE_BYTES = 256_000_000


class RequestLog:
    """Writes one JSON object per line to `folder`/requests.jsonl; a new file each day, and at 256 MB.

    Rotated files are deleted after `days`, or, oldest first, while all logs in `folder` are larger than
    `total_bytes`.
    """

    def __init__(self, folder: Path, days: float, total_bytes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handler = _Handler(folder / "requests.jsonl", days, total_bytes)
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._logger = logging.Logger("requests")  # not below the root logger, which writes to the terminal
        self._logger.addHandler(self._handler)

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        self._logger.info(json.dumps(record, separators=(",", ":")))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(TimedRotatingFileHandler):
    def __init__(self, path: Path, days: float, total_bytes: float) -> None:
        # With any backupCount above 0, getFilesToDelete is asked at each rotation.
        super().__init__(path, when="midnight", utc=True, backupCount=1)
        self._path = path
        self._days = days
        self._total_bytes = total_bytes

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802  # the library's name
        full = self.stream is not None and self.stream.tell() >= _ROTATE_BYTES
        return int(full or super().shouldRollover(record))

    def rotation_filename(self, default_name: str) -> str:
        # A second file of the same day must not overwrite the first.
        name, number = default_name, 1
        while Path(name).exists():
            name, number = f"{default_name}.{number}", number + 1
        return name

    def getFilesToDelete(self) -> list[str]:  # noqa: N802  # the library's name
        return [str(path) for path in old_logs(self._path, self._days, self._total_bytes, time.time())]


def old_logs(current: Path, days: float, total_bytes: float, now: float) -> list[Path]:
    """The rotated files of the log `current` that are to be deleted.

    Those that are older than `days`, and the oldest ones as long as all logs in the folder, other services'
    included, are larger than `total_bytes`. `now` is in seconds since the epoch.
    """
    logs = [path for path in current.parent.iterdir() if ".log" in path.name or ".jsonl" in path.name]
    total = sum(path.stat().st_size for path in logs)
    old = []
    for path in sorted(current.parent.glob(f"{current.name}.*"), key=lambda path: path.stat().st_mtime):
        status = path.stat()
        if status.st_mtime < now - days * 86400 or total > total_bytes:
            total -= status.st_size
            old.append(path)
    return old
