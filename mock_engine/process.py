"""A staged engine as a process, for tests that measure against it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StagedProcess:
    """A running staged engine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def control(self, method: str = "GET", knobs: dict[str, Any] | None = None) -> Any:
        """GET, POST or DELETE /staged; returns its state."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, "/staged", json.dumps(knobs) if knobs is not None else None)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def staged_engine(*options: str) -> Iterator[StagedProcess]:
    """Run one with these command-line options, on a free port."""
    command = [sys.executable, "-m", "loadtests.staged", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield StagedProcess(int(process.stdout.readline().rsplit(":", 1)[1]))
        finally:
            process.terminate()
