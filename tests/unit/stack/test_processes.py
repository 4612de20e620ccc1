import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from services.stack.supervision import processes
from services.stack.supervision.processes import end, marked, marks


def test_processes_that_end_while_they_are_looked_at_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever psutil is asked, the process has ended just before."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=marks(tmp_path, "x"))
    (found,) = marked(tmp_path)

    def gone(self: psutil.Process, *_: object, **__: object) -> None:
        raise psutil.NoSuchProcess(self.pid)

    with monkeypatch.context() as patched:
        for name in ("cmdline", "status", "kill", "environ", "parent", "parents", "wait", "is_running"):
            patched.setattr(psutil.Process, name, gone)
        assert marked(tmp_path) == []
        end([found])
    end([found])
    assert child.wait(30) == -9


def test_many_that_come_and_go_are_no_error(tmp_path: Path) -> None:
    stop = threading.Event()

    def spawn() -> None:
        while not stop.is_set():
            subprocess.run(["/bin/true"], env=marks(tmp_path, "x"))

    spawning = [threading.Thread(target=spawn) for _ in range(4)]
    for thread in spawning:
        thread.start()
    try:
        for _ in range(20):
            end(marked(tmp_path))
    finally:
        stop.set()
        for thread in spawning:
            thread.join()
    assert processes.marked(tmp_path) == []
