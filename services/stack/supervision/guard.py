"""Runs one service so that none of its processes survives it, and writes its log.

vLLM starts processes that start processes. The guard adopts those whose parent dies (child subreaper), ends
all of them before it ends itself, and is told by the kernel when the supervisor dies. What a killed guard
leaves behind is recognized by its mark, and ended by the next guard of the same service or by `down`.

`python -m services.stack.supervision.guard NAME [--ready-url URL --start-lock FILE] -- COMMAND ...`
"""

import argparse
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import psutil

from services.stack.supervision.health import STARTING, WAITING, answers
from services.stack.supervision.logfile import LogFile
from services.stack.supervision.processes import end, marked, marks

_LONGEST_LINE = 2**20
GRACE = 20  # seconds a service has between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(sent: signal.Signals) -> None:
    """Have the kernel send the signal `sent` to this process when its parent dies (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, sent)


class Guard:
    """The processes of one service, from start to end."""

    def __init__(self, home: Path, name: str, command: list[str]) -> None:
        self.home, self.name, self.command = home, name, command
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, ready_url: str | None, start_lock: Path | None) -> int:
        """Run the command to its end; returns its exit status.

        With `start_lock`, the command starts only while no other service holds the lock, and the lock is
        released when `ready_url` answers: engines load one after the other, each with the whole machine.
        """
        signal.signal(signal.SIGTERM, self._end_child)
        signal.signal(signal.SIGINT, self._end_child)
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        end(marked(self.home, self.name))
        log = LogFile(
            self.home / "data" / "logs",
            self.name,
            float(os.environ["LOG_DAYS"]),
            float(os.environ["LOG_TOTAL_GB"]) * 1e9,
        )
        lock = start_lock.open("w") if start_lock else None
        if lock:
            log.write(WAITING)
            fcntl.flock(lock, fcntl.LOCK_EX)
        log.write(STARTING)
        self._child = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | marks(self.home, self.name),
            preexec_fn=lambda: end_with_parent(signal.SIGKILL),
        )
        pump = threading.Thread(target=_copy, args=(self._child, log))
        pump.start()
        if lock and ready_url:
            while self._child.poll() is None and not answers(ready_url):
                time.sleep(0.3)
            lock.close()
        status = self._child.wait()
        end(psutil.Process().children(recursive=True))
        pump.join()
        return status if status >= 0 else 128 - status

    def _end_child(self, _number: int, _frame: FrameType | None) -> None:
        if self._child is None:
            sys.exit(0)  # also ends the wait for the start lock
        if self._child.poll() is None:
            self._child.terminate()
            killer = threading.Timer(GRACE, self._child.kill)
            killer.daemon = True
            killer.start()


def _copy(child: subprocess.Popen[bytes], log: LogFile) -> None:
    # In parts, because a line may have no end.
    while child.stdout and (line := child.stdout.readline(_LONGEST_LINE)):
        log.write(line)


def main() -> int:
    """Run one service; returns its exit status."""
    parser = argparse.ArgumentParser(description="Run one service so that none of its processes survives it.")
    parser.add_argument("name")
    parser.add_argument("--ready-url")
    parser.add_argument("--start-lock", type=Path)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 0  # the supervisor died before the kernel could tell
    guard = Guard(Path(os.environ["DUOSERVE_HOME"]), arguments.name, arguments.command)
    return guard.run(arguments.ready_url, arguments.start_lock)


if __name__ == "__main__":
    sys.exit(main())
