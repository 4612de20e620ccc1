import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import wait_for


class Redis:
    """A Redis server that keeps nothing on disk; skips the test where there is no program for it."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if not program:
            pytest.skip("redis-server is not installed")
        self._program, self._log = program, folder / "redis.log"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "Redis":
        command = [self._program, "--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._process = Process(command, self._log)
        wait_for(lambda: self.ask("ping") == "PONG", "redis answers")
        return self

    def kill(self) -> None:
        self._process.stop(signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """What it answers to a command; empty if nobody does."""
        asked = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
