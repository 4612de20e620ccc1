"""How much memory the service's processes hold, when they run on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import gevent
import psutil

EVERY = 10.0  # seconds; looking takes some milliseconds in which nothing else is measured


def resident(url: str) -> float | None:
    """Megabytes of the process listening at `url` and its descendants; None if it is not to be seen here."""
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        # The address of a socket without one is an empty tuple.
        listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
        if listens and connection.pid:
            process = psutil.Process(connection.pid)
            family = [process, *process.children(recursive=True)]
            return sum(_resident(member) for member in family) / 2**20
    return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@dataclass
class MemoryWatch:
    """Looks at the memory of several services, by name and URL, between start() and stop()."""

    urls: dict[str, str]
    # By service: (seconds since the start, megabytes).
    seen: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def start(self) -> None:
        """Begin looking."""
        self._began = time.monotonic()
        self._greenlet = gevent.spawn(self._look)

    def _look(self) -> None:
        while True:
            for name, url in self.urls.items():
                megabytes = resident(url)
                if megabytes is not None:
                    at = round(time.monotonic() - self._began, 1)
                    self.seen.setdefault(name, []).append((at, round(megabytes, 1)))
            gevent.sleep(EVERY)

    def stop(self) -> dict[str, list[tuple[float, float]]]:
        """What was seen."""
        self._greenlet.kill()
        return self.seen
