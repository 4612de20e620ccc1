"""How many requests of the last 30 days kept each promise, remembered across restarts."""

import json
import logging
import math
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

WINDOW_DAYS = 30
_NAME = "promises.json"
_WRITE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class ErrorBudget:
    """Counts requests by day (of UTC), model and promise, in `folder`/promises.json.

    The file is written every ten seconds at most, and when this is closed: a router that is killed forgets
    no more than that. It names nobody, so it may outlive the request log.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        # Day, model, promise, whether it was kept.
        self._counts: Counter[tuple[str, str, str, bool]] = _read(self._path)
        self._written = -math.inf

    def add(self, alias: str, promise: str, kept: bool) -> None:
        """Count a request of today."""
        self._counts[_today().isoformat(), alias, promise, kept] += 1
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def requests(self) -> Counter[tuple[str, str, bool]]:
        """How many of the window kept a promise and how many broke it, by model and promise."""
        self._forget()
        sums: Counter[tuple[str, str, bool]] = Counter()
        for (_, alias, promise, kept), count in self._counts.items():
            sums[alias, promise, kept] += count
        return sums

    def since(self) -> datetime | None:
        """Midnight of the first day of the window that has requests."""
        self._forget()
        first = min((day for day, *_ in self._counts), default=None)
        return datetime.fromisoformat(first).replace(tzinfo=UTC) if first else None

    def close(self) -> None:
        """Write what has been counted."""
        if self._counts:
            self._write()

    def _forget(self) -> None:
        first = (_today() - timedelta(days=WINDOW_DAYS - 1)).isoformat()
        for place in [place for place in self._counts if place[0] < first]:
            del self._counts[place]

    def _write(self) -> None:
        self._forget()
        self._written = time.monotonic()
        partial = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps([[*place, count] for place, count in self._counts.items()]))
            partial.replace(self._path)
        except OSError as error:
            _log.warning("%s could not be written: %s", self._path, error)


def _read(path: Path) -> Counter[tuple[str, str, str, bool]]:
    try:
        rows = json.loads(path.read_text())
        return Counter(
            {
                (str(date.fromisoformat(day)), str(alias), str(promise), bool(kept)): int(count)
                for day, alias, promise, kept, count in rows
            }
        )
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        _log.warning("error budgets begin anew, because %s cannot be read: %s", path, error)
    return Counter()


def _today() -> date:
    return datetime.now(UTC).date()
