"""Finds and ends the processes of a stack, by the mark that each has in its environment."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

_HOME, _SERVICE = "DUOSERVE_HOME", "DUOSERVE_SERVICE"


def marks(home: Path, service: str) -> dict[str, str]:
    """Environment variables that mark a process, and all processes it starts, as part of a service."""
    # vLLM renames its processes with setproctitle, which overwrites the environment that others see unless
    # SPT_NOENV is set.
    return {_HOME: str(home), _SERVICE: service, "SPT_NOENV": "1"}


def marked(home: Path, service: str | None = None) -> list[psutil.Process]:
    """The running processes of one service of the stack at `home`, or of all its services.

    Excludes the caller, its ancestors and the processes of other users.
    """
    own = {os.getpid(), *_ancestors()}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get(_HOME) != str(home) or _SERVICE not in environment:
            continue
        if service in (None, environment[_SERVICE]):
            found.append(process)
    return found


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they are gone.

    Python's resource trackers get a moment to end by themselves, because they remove the shared memory of the
    killed processes.
    """
    processes = list(processes)
    _kill(process for process in processes if not _is_resource_tracker(process))
    left = wait(processes, 2)
    _kill(left)
    wait(left, 10)


def _ancestors() -> Iterator[int]:
    """The ids of this process's ancestors, as far as they are still there while they are looked up."""
    with contextlib.suppress(psutil.Error):
        process: psutil.Process | None = psutil.Process()
        while process and (process := process.parent()):
            yield process.pid


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # Gone by now, or another user's since its number was given anew.
        with contextlib.suppress(psutil.Error):
            process.kill()


def wait(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until the processes are gone; returns those that are not after `seconds`.

    Not psutil's wait_procs: it raises when a process ends at the wrong moment.
    """
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in argument for argument in process.cmdline())
    except psutil.Error:
        return False
