"""Whether each request is in the request log and in the counters exactly once."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from router.paths import INFERENCE
from tests.soak.clients import Request
from tests.support.stack import Stack

_COUNTED = re.compile(
    rf'^duoserve_requests_total\{{.*path="(?:{"|".join(map(re.escape, INFERENCE))})".*\}} (\S+)$', re.M
)
# Between what a client sees and what the router notes.
_SLACK_SECONDS = 3.0


@dataclass
class Router:
    """One life of the router: what it counted, and what it wrote to the log.

    `counted` and `lines` belong to the same moment, the last look; `later` are the lines that it wrote
    between that and its end. What it counted and did not write, for want of space, is `lost`.
    """

    counted: int = 0
    lines: int = 0
    later: int = 0

    @property
    def lost(self) -> int:
        return self.counted - self.lines


@dataclass
class Accounts:
    """Keeps account of a stack whose router may be killed."""

    stack: Stack
    routers: list[Router] = field(default_factory=lambda: [Router()])
    _before: int = 0  # lines of the routers before this one

    def records(self) -> list[Any]:
        """The whole lines of the request log. A disk that was full may have cut some."""
        return [json.loads(line) for line in self._log().splitlines() if line.endswith(b"}")]

    def _log(self) -> bytes:
        folder = self.stack.home / "data" / "logs"
        return b"".join(path.read_bytes() for path in sorted(folder.glob("requests.jsonl*")))

    def _lines(self) -> int:
        return self._log().count(b"}\n")

    def look(self) -> Router:
        """Read the counters of the router and the log at one moment: when no line came in between."""
        router, lines = self.routers[-1], -1
        while (now := self._lines()) != lines:
            lines = now
            router.counted = self._counted()
        router.lines = lines - self._before
        return router

    def died(self) -> None:
        """The router has been killed."""
        lines = self._lines()
        self.routers[-1].later = lines - self._before - self.routers[-1].lines
        self.routers.append(Router())
        self._before = lines

    def _counted(self) -> int:
        answer = httpx.get(f"{self.stack.url}/metrics", headers=self.stack.headers, timeout=30)
        answer.raise_for_status()
        return int(sum(map(float, _COUNTED.findall(answer.text))))

    def gauge(self, name: str) -> float:
        """The sum of one of the router's metrics over its labels."""
        text = httpx.get(f"{self.stack.url}/metrics", headers=self.stack.headers, timeout=30).text
        return sum(map(float, re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)))


@dataclass
class Balance:
    """How the clients' requests compare with the log's lines."""

    sent: int
    logged: int  # exactly once
    twice: list[str]
    killed: list[str]  # in flight when the router was killed, and not in the log
    full: list[str]  # ended while the disk was full, and not in the log
    missing: list[str]  # not in the log, for no reason
    others: Counter[str]  # lines about others' requests, by tool


def balance(
    requests: Sequence[Request],
    records: Iterable[Any],
    kills: Sequence[float],
    full: Sequence[tuple[float, float]],
) -> Balance:
    """Compare the requests that clients sent with the log's lines.

    `kills` are the moments when the router was killed, `full` from when to when the log's disk was full, in
    seconds of `time.monotonic()`.
    """
    lines = Counter[str]()
    others = Counter[str]()
    for record in records:
        name = record["client_request_id"] or ""
        if name.startswith("soak-"):
            lines[name] += 1
        else:
            others[record["tool"]] += 1
    found = Balance(len(requests), 0, [], [], [], [], others)
    for request in requests:
        times = lines.pop(request.id, 0)
        began, ended = request.began - _SLACK_SECONDS, request.ended + _SLACK_SECONDS
        if times == 1:
            found.logged += 1
        elif times:
            found.twice.append(request.id)
        elif request.outcome != "answered" and any(began <= kill <= ended for kill in kills):
            found.killed.append(request.id)
        elif any(start <= ended and _earliest_end(request) <= end + _SLACK_SECONDS for start, end in full):
            found.full.append(request.id)
        else:
            found.missing.append(request.id)
    found.twice += lines  # never sent
    return found


def _earliest_end(request: Request) -> float:
    """When the router may have ended it: what nobody reads, at any time before its client leaves."""
    return request.began if request.outcome == "unread" else request.ended
