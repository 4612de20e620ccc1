"""The request log: rotated, deleted when it is old, and read again."""

import bz2
import contextlib
import gzip
import json
import logging
import lzma
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader, TextIOWrapper
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from typing import IO, Any

_NAME = "requests.jsonl"
_ROTATE_BYTES = 256_000_000
_READ_BYTES = 1_000_000
# Whoever keeps logs for longer may compress rotated files; the router does not.
_COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_WARNING_SECONDS = 60.0
_log = logging.getLogger(__name__)


class RequestLog:
    """Writes one JSON object per line to `folder`/requests.jsonl; a new file each day, and at 256 MB.

    Rotated files are deleted after `days`, or, oldest first, while all logs in `folder` are larger than
    `total_bytes`. A line that cannot be written, for example because the disk is full, is lost, and the
    router's own log says so. A log that was deleted is created again.
    """

    def __init__(self, folder: Path, days: float, total_bytes: float) -> None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        self._handler = _Handler(folder / _NAME, days, total_bytes)
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
        super().__init__(path, when="midnight", utc=True, backupCount=1, delay=True)
        self._path = path
        self._days = days
        self._total_bytes = total_bytes
        self._warned = -_WARNING_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and not self._is_there(self.stream):
            self._drop()
        super().emit(record)

    def _is_there(self, stream: TextIOWrapper) -> bool:
        """Whether the file that is open is still the one of that name."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(stream.fileno()))
        except OSError:
            return False

    def _open(self) -> TextIOWrapper:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torn = _is_torn(self._path)
        stream = super()._open()
        if torn:  # a full disk took only a part of the last line
            stream.write("\n")
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        self._drop()
        if time.monotonic() - self._warned >= _WARNING_SECONDS:
            self._warned = time.monotonic()
            _log.warning("requests are missing in %s: %s", self._path, sys.exc_info()[1])

    def _drop(self) -> None:
        """Close the file with what could not be written to it; the next line opens it again."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

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


def _is_torn(path: Path) -> bool:
    """Whether the last line has no end."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
    except OSError:  # it is not there, or empty
        return False


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


def read_lines(folder: Path, since: float, unreadable: list[str]) -> Iterator[list[bytes]]:
    """The lines of the log and of its rotated files, compressed ones too, a megabyte at a time.

    Files that were last written before `since`, in seconds since the epoch, are left out. The names of those
    that cannot be read, or only in part, are added to `unreadable`.
    """
    with contextlib.ExitStack() as stack:
        files: dict[tuple[int, int], tuple[Path, BufferedReader]] = {}
        # All are opened before any is read. The current one is first: if it is rotated meanwhile, it comes
        # again under its new name, as the same file.
        for path in [folder / _NAME, *sorted(folder.glob(f"{_NAME}.*"))]:
            if path.suffix in _COMPRESSED and path.with_suffix("").exists():
                continue  # still being compressed
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                continue
            except OSError:
                unreadable.append(path.name)
                continue
            status = os.fstat(file.fileno())
            if status.st_mtime >= since:
                files.setdefault((status.st_dev, status.st_ino), (path, file))
        for path, file in files.values():
            compressed = _COMPRESSED.get(path.suffix)
            try:
                yield from _batches(compressed(file) if compressed else file)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                unreadable.append(path.name)


def _batches(file: IO[bytes]) -> Iterator[list[bytes]]:
    rest = b""
    while block := file.read(_READ_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        yield whole
        if len(rest) > _READ_BYTES:  # not a line of this log
            rest = b""
    yield [rest]
