"""What people and tools used, added up from the request log: counts and times."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from router.errors import is_failure
from router.request_log import read_lines

VIEWS = ("client", "model", "day", "tool")
# Where more names than this are in the log, the rest count together, so that memory has a bound.
_MOST_NAMES = 1000
_OTHERS = "(others)"
_MOST_CELLS = 50_000
_LONGEST_DAYS = 3650
_ABSENT = dict.fromkeys(
    ("client", "key", "alias", "tool", "time", "prompt_tokens", "completion_tokens", "cached_tokens")
    + ("queue_wait_ms", "status", "aborted", "error")
)
_pick = itemgetter(*_ABSENT)
_START = b'{"time":"'
_TIME = slice(len(_START), len(_START) + len("2026-11-28T12:00:00.000"))


@dataclass(slots=True)
class Tally:
    """The sums of some requests; times in milliseconds."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    # Prompt tokens of those whose engine told how many were cached.
    told_tokens: int = 0
    waits: int = 0
    wait_ms: float = 0.0
    longest_wait_ms: float = 0.0
    refused: int = 0
    failed: int = 0
    left: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add the sums of other requests."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cached_tokens += other.cached_tokens
        self.told_tokens += other.told_tokens
        self.waits += other.waits
        self.wait_ms += other.wait_ms
        self.longest_wait_ms = max(self.longest_wait_ms, other.longest_wait_ms)
        self.refused += other.refused
        self.failed += other.failed
        self.left += other.left
        self.reasons.update(other.reasons)
        self.tools.update(other.tools)

    def row(self) -> dict[str, Any]:
        """What a report says. `cached_share` is None if no engine told, `mean_wait_ms` if nothing waited."""
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "cached_share": round(self.cached_tokens / self.told_tokens, 4) if self.told_tokens else None,
            "completion_tokens": self.completion_tokens,
            "mean_wait_ms": round(self.wait_ms / self.waits, 1) if self.waits else None,
            "longest_wait_ms": round(self.longest_wait_ms, 1),
            "refused": self.refused,
            "failed": self.failed,
            "left": self.left,
            "reasons": dict(self.reasons.most_common()),
            "tools": dict(self.tools.most_common()),
        }


def start_of(since: str, offset: timedelta, now: datetime) -> datetime:
    """When a report begins: `since` is a number of days or hours such as `7d` or `24h`, or a date, which
    begins at midnight of the time zone that is `offset` ahead of UTC.

    Raises:
        ValueError: it is none of these, or more than ten years. The text continues the parameter's name.
    """
    problem = "is not a time; give a number of days (7d) or hours (24h), or a date (2026-11-28)"
    if found := re.fullmatch(r"([0-9]{1,5})([dh])", since):
        span = timedelta(days=int(found[1])) if found[2] == "d" else timedelta(hours=int(found[1]))
        start = now - span
    else:
        try:
            start = datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC) - offset
        except (ValueError, OverflowError):
            raise ValueError(problem) from None
    if now - start > timedelta(days=_LONGEST_DAYS):
        raise ValueError(f"is too long ago; give at most {_LONGEST_DAYS}d")
    return start


def report(folder: Path, since: datetime, offset: timedelta, key: str | None = None) -> dict[str, Any]:
    """The use since then, from the log in `folder`: in total, and by each of VIEWS.

    `hours` counts requests by weekday (from Monday) and hour. Days and hours are those of the time zone that
    is `offset` ahead of UTC. With `key`, only the requests of the key of that name count. A name that is None
    stands for requests without one: refused before it was known who asked, or which model was meant.
    `log_begins` is set if the log does not reach back to `since`.
    """
    sums = _Sums(offset)
    damaged, unreadable = 0, list[str]()
    earliest, reaches_back = "", False
    start = since.astimezone(UTC).isoformat(timespec="milliseconds")[:23]
    start_bytes = start.encode()
    for lines in read_lines(folder, since.timestamp(), unreadable):
        for line in lines:
            # As RequestLog writes it, so that it need not be parsed.
            if line[_TIME] < start_bytes and line.startswith(_START):
                reaches_back = True
                continue
            if not line:
                continue
            try:
                record = orjson.loads(line)
                time = record["time"]
                if time < start:
                    reaches_back = True
                    continue
                if not earliest or time < earliest:
                    earliest = time
                if key is None or record["key"] == key:
                    sums.count(record)
            except (ValueError, KeyError, TypeError, AttributeError):
                damaged += 1
    return {
        "key": key,
        "since": since.isoformat(timespec="seconds"),
        "log_begins": earliest or None if not reaches_back else None,
        "damaged_lines": damaged,
        "unreadable_files": unreadable,
        **sums.result(),
    }


# Client, model, tool, hour.
_Place = tuple[str | None, str | None, str | None, str]


class _Sums:
    """Adds records up: first by all that is told apart, then each view from those few sums."""

    def __init__(self, offset: timedelta) -> None:
        self._offset = offset
        self._cells: dict[_Place, Tally] = {}
        self._names: list[set[str]] = [set(), set(), set()]
        self._total = Tally()
        self._views: dict[str, dict[str | None, Tally]] = {view: {} for view in VIEWS}
        self._hours = [[0] * 24 for _ in range(7)]

    def count(self, record: dict[str, Any]) -> None:
        try:
            picked = _pick(record)
        except KeyError:  # of an earlier version
            picked = _pick(_ABSENT | record)
        client, key, model, tool, time, prompt, completion, cached, wait, status, left, reason = picked
        # Hours of UTC: a zone that is half an hour off has its requests in the hour before or after.
        place = client or key, model, tool, time[:13]
        cell = self._cells.get(place) or self._cell(place)
        cell.requests += 1
        if prompt:
            cell.prompt_tokens += prompt
            if cached is not None:
                cell.cached_tokens += cached
                cell.told_tokens += prompt
        if completion:
            cell.completion_tokens += completion
        if wait is not None:
            cell.waits += 1
            cell.wait_ms += wait
            if wait > cell.longest_wait_ms:
                cell.longest_wait_ms = wait
        if left:
            cell.left += 1
        elif status == 200 and not reason:
            return
        elif is_failure(status, reason):
            cell.failed += 1
        else:
            cell.refused += 1
        if reason:
            cell.reasons[reason] += 1

    def _cell(self, place: _Place) -> Tally:
        if len(self._cells) >= _MOST_CELLS:
            self._fold()
        *names, hour = place
        datetime.fromisoformat(f"{hour}:00")  # ValueError if it is none
        client, model, tool = (self._known(number, name) for number, name in enumerate(names))
        return self._cells.setdefault((client, model, tool, hour), Tally())

    def _known(self, number: int, name: str | None) -> str | None:
        names = self._names[number]
        if name is None or name in names:
            return name
        if len(names) >= _MOST_NAMES:
            return _OTHERS
        names.add(name)
        return name

    def _fold(self) -> None:
        for (client, model, tool, hour), cell in self._cells.items():
            local = datetime.fromisoformat(f"{hour}:00") + self._offset
            cell.tools[tool or "unknown"] = cell.requests
            self._total.add(cell)
            for view, name in zip(VIEWS, (client, model, f"{local:%Y-%m-%d}", tool), strict=True):
                self._views[view].setdefault(name, Tally()).add(cell)
            self._hours[local.weekday()][local.hour] += cell.requests
        self._cells.clear()

    def result(self) -> dict[str, Any]:
        """The parts of the report that are sums; days in their order, other names by requests."""
        self._fold()
        by_name: Callable[[tuple[str | None, Tally]], Any] = lambda item: item[0]  # noqa: E731
        by_requests: Callable[[tuple[str | None, Tally]], Any] = lambda item: -item[1].requests  # noqa: E731
        views = {
            view: [
                {"name": name, **tally.row()}
                for name, tally in sorted(tallies.items(), key=by_name if view == "day" else by_requests)
            ]
            for view, tallies in self._views.items()
        }
        return {"total": self._total.row(), **views, "hours": self._hours}
