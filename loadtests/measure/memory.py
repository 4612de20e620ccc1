"""How much memory the service's processes hold, when they run on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import gevent
import psutil

INTERVAL = 10.0  # seconds; a look takes some milliseconds, in which nothing else is measured


def with_children(pid: int) -> list[psutil.Process]:
    """The process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def resident(url: str) -> float | None:
    """Megabytes held by the process listening at `url` and its descendants; None when it is not found."""
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        # The address of a socket without one is an empty tuple.
        listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
        if listens and connection.pid:
            return sum(_resident(process) for process in with_children(connection.pid)) / 2**20
    return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@dataclass
class MemoryWatch:
    """Records the memory of several services, by name and URL, between start() and stop()."""

    urls: dict[str, str]
    # By service: (seconds since the start, megabytes).
    readings: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def start(self) -> None:
        """Begin recording, in the background."""
        self._began = time.monotonic()
        self._greenlet = gevent.spawn(self._record)

    def _record(self) -> None:
        while True:
            for name, url in self.urls.items():
                megabytes = resident(url)
                if megabytes is not None:
                    at = round(time.monotonic() - self._began, 1)
                    self.readings.setdefault(name, []).append((at, round(megabytes, 1)))
            gevent.sleep(INTERVAL)

    def stop(self) -> dict[str, list[tuple[float, float]]]:
        """End recording; returns the readings."""
        self._greenlet.kill()
        return self.readings
