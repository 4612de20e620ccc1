"""The request log, and how long any service's logs are kept."""

import asyncio
import json
import logging
import time
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from typing import Any

_ROTATE_BYTES = 256_000_000
_SWEEP_SECONDS = 600.0
_log = logging.getLogger(__name__)


class RequestLog:
    """Writes one JSON object a line to `folder`/requests.jsonl; a new file each day, and at 256 MB."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _DailyOrLarge(folder / "requests.jsonl", when="midnight", utc=True)
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._logger = logging.Logger("requests")  # apart from the root logger: these lines go to no terminal
        self._logger.addHandler(handler)
        self._handler = handler

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        self._logger.info(json.dumps(record, separators=(",", ":")))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _DailyOrLarge(TimedRotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802  # the library's name
        full = self.stream is not None and self.stream.tell() >= _ROTATE_BYTES
        return int(full or super().shouldRollover(record))

    def rotation_filename(self, default_name: str) -> str:
        # A second file of the same day must not overwrite the first.
        name, number = default_name, 1
        while Path(name).exists():
            name, number = f"{default_name}.{number}", number + 1
        return name


def sweep(folder: Path, days: float, total_bytes: float, now: float) -> list[Path]:
    """Delete rotated logs in `folder` that are older than `days` or, oldest first, over `total_bytes` in all.

    A log is rotated when its name goes on after `.log` or `.jsonl`; the files being written are never
    deleted, but count. `now` is in seconds since the epoch. Returns what was deleted.
    """
    logs = [path for path in folder.glob("**/*") if path.is_file() and _is_log(path)]
    rotated = sorted(
        (p for p in logs if not p.name.endswith((".log", ".jsonl"))), key=lambda p: p.stat().st_mtime
    )
    total = sum(path.stat().st_size for path in logs)
    deleted = []
    for path in rotated:
        status = path.stat()
        if status.st_mtime < now - days * 86400 or total > total_bytes:
            path.unlink(missing_ok=True)
            total -= status.st_size
            deleted.append(path)
    return deleted


def _is_log(path: Path) -> bool:
    return ".log" in path.name or ".jsonl" in path.name


async def sweep_forever(folder: Path, days: float, total_bytes: float) -> None:
    """`sweep` now and every ten minutes."""
    while True:
        try:
            for path in await asyncio.to_thread(sweep, folder, days, total_bytes, time.time()):
                _log.info("deleted the old log %s", path.name)
        except OSError as error:
            _log.warning("cannot delete old logs: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)
