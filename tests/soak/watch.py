"""What the processes of a stack hold: memory in the course of time, and descriptors, threads and files."""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import scipy

from tests.support.stack import Stack

SERVICES = ("router", "ui", "coder", "general", "supervisor")
INTERVAL = 5.0  # seconds between two readings
_BIN = 30.0  # seconds whose median is one point of a slope: neighbours are alike
_FEWEST = 10  # points for a slope


@dataclass(frozen=True)
class Life:
    """One service from a start to its end: when it started (epoch), and its memory, (seconds, MB)."""

    service: str
    started: float
    readings: list[tuple[float, float]]

    def after(self, warm_up: float) -> list[tuple[float, float]]:
        """The readings without those of the first `warm_up` seconds."""
        return [(at, size) for at, size in self.readings if at >= self.readings[0][0] + warm_up]


@dataclass(frozen=True)
class Slope:
    """MB per hour with its 95 % interval, and the memory in MB at the beginning."""

    value: float
    low: float
    high: float
    level: float


class Watch(threading.Thread):
    """Reads the memory of every service from `start` to `stop`.

    Of its proportional set size (PSS) the part that no file backs: what files back changes with every other
    process on the machine that maps them.
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._ending = threading.Event()
        self._lives: dict[tuple[str, int], Life] = {}
        self._shared: set[Path] = set()
        self.loads: list[float] = []  # the machine's load averages of a minute
        self.began = time.monotonic()

    def run(self) -> None:
        while not self._ending.wait(INTERVAL):
            self.loads.append(os.getloadavg()[0])
            for service in SERVICES:
                self._read(service)

    def stop(self) -> None:
        self._ending.set()
        self.join()

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())

    def now(self) -> dict[str, float]:
        """The latest reading of each service, in MB."""
        return {life.service: life.readings[-1][1] for life in self.lives}

    def shared_memory_left(self) -> set[Path]:
        """The shared memory of processes that have ended."""
        used = set().union(*map(_shared_memory, self._stack.processes()))
        return {path for path in self._shared - used if path.exists()}

    def _read(self, service: str) -> None:
        try:
            processes = self._stack.processes(service)
            first = min(processes, key=lambda process: process.create_time())
            started, size = first.create_time(), sum(map(_own_memory, processes))
        except (ValueError, psutil.Error):
            return  # it is being restarted
        self._shared.update(*map(_shared_memory, processes))
        life = self._lives.setdefault((service, first.pid), Life(service, started, []))
        life.readings.append((time.monotonic() - self.began, size))


def _own_memory(process: psutil.Process) -> float:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    return sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB$", text, re.M))) / 1024


def _shared_memory(process: psutil.Process) -> set[Path]:
    try:
        text = Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return set(map(Path, re.findall(r" (/dev/shm/\S+)$", text, re.M)))


def slope(readings: Sequence[tuple[float, float]]) -> Slope | None:
    """The slope of memory (Theil and Sen); None if there are too few readings.

    The interval is that of Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, 1968.
    """
    bins: dict[int, list[float]] = {}
    for at, size in readings:
        bins.setdefault(int(at / _BIN), []).append(size)
    if len(bins) < _FEWEST:
        return None
    hours = [number * _BIN / 3600 for number in bins]
    sizes = [float(np.median(inside)) for inside in bins.values()]
    value, _, low, high = scipy.stats.theilslopes(sizes, hours, 0.95)
    return Slope(float(value), float(low), float(high), sizes[0])


def holdings(stack: Stack) -> dict[str, Counter[str]]:
    """By service, how many processes, threads, descriptors and sockets it has; and the stack's files."""
    found: dict[str, Counter[str]] = {}
    for service in SERVICES:
        found[service] = count = Counter[str](processes=0, threads=0, descriptors=0, sockets=0)
        for process in stack.processes(service):
            try:
                links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
                count["threads"] += process.num_threads()
            except (FileNotFoundError, psutil.Error):
                continue
            count["processes"] += 1
            count["descriptors"] += len(links)
            count["sockets"] += sum(link.startswith("socket:") for link in links)
    return found


def files(stack: Stack) -> Counter[str]:
    """How many temporary files the stack has, and how many files of data other than logs."""
    temporary = Path(stack.processes("router")[0].environ()["TMPDIR"]).parent
    kept = [path for path in (stack.home / "data").rglob("*") if "logs" not in path.parts]
    return Counter({"temporary files": len(list(temporary.rglob("*"))), "files of data": len(kept)})
