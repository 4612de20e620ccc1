"""A service's log on disk: rotated, and kept for seven days or ten gigabytes, whichever comes first."""

import datetime
from pathlib import Path

ROTATE_BYTES = 100_000_000
KEEP_BYTES = 10_000_000_000
KEEP_DAYS = 7


class LogFile:
    """Appends to FOLDER/NAME.log; renames it to NAME-TIME.log daily and when it is full; prunes the folder.

    The limits are for the folder, which all services of a stack share.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        rotate_bytes: int = ROTATE_BYTES,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._path = folder / f"{name}.log"
        self._rotate_bytes, self._keep_bytes = rotate_bytes, keep_bytes
        self._open()

    def write(self, line: bytes) -> None:
        """Append one line; it is on disk, not in a buffer, when this returns."""
        now = datetime.datetime.now(datetime.UTC)
        if self._size and (now.date() != self._day or self._size + len(line) > self._rotate_bytes):
            self._file.close()
            self._path.rename(self._folder / f"{self._name}-{now:%Y%m%dT%H%M%S.%f}.log")
            self._prune(now)
            self._open()
        self._size += self._file.write(line)

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
        changed = self._path.stat().st_mtime
        self._day = datetime.datetime.fromtimestamp(changed, datetime.UTC).date()

    def _prune(self, now: datetime.datetime) -> None:
        rotated = sorted(self._folder.glob("*-*T*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
        oldest = (now - datetime.timedelta(days=KEEP_DAYS)).timestamp()
        kept = 0
        for path in rotated:
            kept += path.stat().st_size
            if kept > self._keep_bytes or path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
