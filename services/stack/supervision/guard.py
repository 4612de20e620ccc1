"""Runs one service so that none of its processes survives it, writes its log, and ends it when it hangs.

vLLM starts processes that start processes. The guard adopts those whose parent dies (child subreaper), ends
all of them before it ends itself, and is told by the kernel when the supervisor dies. What a killed guard
leaves behind is recognized by its mark, and ended by the next guard of the same service or by `down`.

`python -m services.stack.supervision.guard NAME` runs what data/run/NAME.json describes (`Service`).
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from services.stack.supervision.health import STARTING, WAITING, answers
from services.stack.supervision.logfile import LogFile
from services.stack.supervision.processes import end, marked, marks
from services.stack.supervision.watch import CHECK_SECONDS, Limits, Watch

_LONGEST_LINE = 2**20
GRACE = 20  # seconds a service has between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(sent: signal.Signals) -> None:
    """Have the kernel send the signal `sent` to this process when its parent dies (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, sent)


@dataclass(frozen=True)
class Service:
    """What a guard runs: a command and all of its environment.

    With `ready_url`, the command starts only while no other service of the stack is starting, and until that
    URL answers no other one starts: engines load one after the other, each with the whole machine. From then
    on it yields to the others by `nice` (nice(2)). A service beyond its `limits` is killed; the supervisor
    restarts it. `temporary`, if there is one, becomes its folder for temporary files, empty at each start.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str | None = None
    limits: Limits = field(default_factory=Limits)
    nice: int = 0
    temporary: str = ""

    @classmethod
    def read(cls, path: Path) -> "Service":
        """The service that a file describes.

        Raises:
            OSError, ValueError, TypeError: it cannot be read, or describes none.
        """
        fields = json.loads(path.read_text())
        return cls(**fields | {"limits": Limits(**fields.get("limits", {}))})


class Guard:
    """The processes of one service, from start to end."""

    def __init__(self, home: Path, name: str, log: LogFile) -> None:
        self.home, self.name, self.log = home, name, log
        self._child: subprocess.Popen[bytes] | None = None
        self._told_to_end = False

    def run(self, service: Service) -> int:
        """Run the service to its end; returns its exit status."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # which the supervisor has blocked
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        end(marked(self.home, self.name))
        environment = {**service.environment, **marks(self.home, self.name)}
        if service.temporary:
            shutil.rmtree(service.temporary, ignore_errors=True)  # what a killed process left behind
            Path(service.temporary).mkdir(mode=0o700)
            environment["TMPDIR"] = service.temporary
        lock = self._start_lock() if service.ready_url else None
        self.log.write(STARTING)
        self._child = subprocess.Popen(
            service.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=lambda: end_with_parent(signal.SIGKILL),
        )
        if self._told_to_end:
            self._terminate(self._child)
        pump = threading.Thread(target=_copy, args=(self._child, self.log))
        pump.start()
        if lock is not None and service.ready_url:
            while self._child.poll() is None and not answers(service.ready_url):
                time.sleep(0.3)
            os.close(lock)
            _lower(self._child.pid, service.nice)
        self._watch(service.limits)
        status = self._child.wait()
        end(psutil.Process().children(recursive=True))
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # those that were adopted
        pump.join()
        return status if status >= 0 else 128 - status

    def _watch(self, limits: Limits) -> None:
        """Kill the service once it is beyond its limits. Returns when it has ended."""
        assert self._child is not None  # noqa: S101 - for the type checker
        watch = Watch(psutil.Process(self._child.pid), limits)
        while self._child.poll() is None:
            if fault := watch.fault():
                self.log.write(f"duoserve: {self.name} is restarted: {fault}\n".encode())
                self._child.kill()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(CHECK_SECONDS)

    def _start_lock(self) -> int:
        """Wait for the lock that one engine after the other holds; returns its descriptor."""
        path = self.home / "data" / "run" / "engine-start.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.log.write(WAITING)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_end = True
        if self._child is None:
            # This ends the wait for the start lock. Python ignores it where it forks, hence the flag.
            sys.exit(0)
        self._terminate(self._child)

    @staticmethod
    def _terminate(child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            child.terminate()
            killer = threading.Timer(GRACE, child.kill)
            killer.daemon = True
            killer.start()


def _lower(pid: int, nice: int) -> None:
    """Lower the priority of a process and its descendants; Linux has one for each thread."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            for thread in each.threads() if nice else ():
                with contextlib.suppress(OSError):
                    own = os.getpriority(os.PRIO_PROCESS, thread.id)
                    os.setpriority(os.PRIO_PROCESS, thread.id, own + nice)


def _copy(child: subprocess.Popen[bytes], log: LogFile) -> None:
    # In parts, because a line may have no end.
    while child.stdout and (line := child.stdout.readline(_LONGEST_LINE)):
        log.write(line)


def main() -> int:
    """Run one service; returns its exit status."""
    parser = argparse.ArgumentParser(description="Run one service so that none of its processes survives it.")
    parser.add_argument("name")
    name = parser.parse_args().name
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 0  # the supervisor died before the kernel could tell
    home = Path(os.environ["DUOSERVE_HOME"])
    log = LogFile.of_service(home, name)
    try:
        return Guard(home, name, log).run(Service.read(home / "data" / "run" / f"{name}.json"))
    except (OSError, ValueError, TypeError) as error:
        log.write(f"duoserve: cannot run {name}: {error}\n".encode())
        return 1


if __name__ == "__main__":
    sys.exit(main())
