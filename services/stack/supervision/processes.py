"""Finds and ends the processes of a stack, by the mark that each has in its environment."""

import contextlib
from collections.abc import Iterable
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
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
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
    _, left = psutil.wait_procs(processes, timeout=2)
    _kill(left)
    psutil.wait_procs(left, timeout=10)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in argument for argument in process.cmdline())
    except psutil.Error:
        return False
