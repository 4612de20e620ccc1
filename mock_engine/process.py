"""Starting and steering a mock engine from another process."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


class MockEngine:
    """A mock engine in a process: a context manager, or `start` and `stop`.

    `knobs` are those of `mock_engine.knobs.Knobs`, by name. `port` 0 takes a free one, kept when the engine
    is started again. What the process prints goes to `log`, or to this process's standard error.
    """

    def __init__(self, model: str = "coder", *, port: int = 0, log: Path | None = None, **knobs: Any) -> None:
        """`model` is a name, or names with commas. Nothing is started yet."""
        self.model = model
        self.port = port
        self._log = log
        self._knobs = knobs
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, **knobs: Any) -> MockEngine:
        """Start it, with `knobs` on top of its own, and return once it listens.

        Raises ConnectionError when it ends instead.
        """
        command = [sys.executable, "-m", "mock_engine", "--port", str(self.port), "--model", self.model]
        for name, value in (self._knobs | knobs).items():
            text = value if isinstance(value, str) else json.dumps(value)
            command.append(f"--{name.replace('_', '-')}={text}")
        errors = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        finally:
            if errors:
                errors.close()
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self.stop()
            raise ConnectionError(f"the mock engine did not start; see {self._log or 'above'}")
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it with a signal, if it runs. At once by default: it has nothing to save."""
        if self._process:
            with self._process as process:  # waits for its end
                process.send_signal(number)
            self._process = None

    def send(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP, after which it goes on existing."""
        if self._process:
            self._process.send_signal(number)

    def __enter__(self) -> MockEngine:
        """Start it."""
        return self.start()

    def __exit__(self, *exc: object) -> None:
        """Stop it."""
        self.stop()

    def set(self, **knobs: Any) -> None:
        """Change knobs for all that follow; `times=2` for the next two. ValueError names a bad knob."""
        self._control("POST", knobs)

    def reset(self) -> None:
        """Forget the recorded requests, and return to the knobs of the start."""
        self._control("DELETE")

    def state(self) -> dict[str, Any]:
        """What GET /mock gives: `knobs`, `running`, `waiting`, `requests`."""
        return self._control("GET")

    def requests(self) -> list[dict[str, Any]]:
        """The recorded requests, oldest first."""
        found: list[dict[str, Any]] = self.state()["requests"]
        return found

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            self.state()
        except OSError:
            return False
        return True

    def _control(self, method: str, knobs: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, "/mock", None if knobs is None else json.dumps(knobs))
            response = connection.getresponse()
            body: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(body["error"]["message"])
        return body
