"""The service as processes for one test module: router and chat app, before staged engines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-browser-tests-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
PATIENCE = 60.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """JSON (or text) of `url`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as answer:
        if not url.endswith("/ready"):  # its status says whether all models are ready, its body which
            raise
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def wait_for(what: Any, said: str, patience: float = PATIENCE) -> Any:
    """The first true answer of `what`, which may fail with an OSError meanwhile."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if answer := what():
                return answer
        except OSError:
            pass
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


class Service:
    """Processes on free ports; `stop` ends them all."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.ports = {name: free_port() for name in ("coder", "general", "router", "ui")}
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        defaults = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
        self.settings = defaults | {
            "LITELLM_MASTER_KEY": KEY,
            "DUOSERVE_HOME": str(folder),
            "ROUTER_PORT": str(self.ports["router"]),
            "UI_PORT": str(self.ports["ui"]),
            "ROUTER_URL": self.url("router"),
            "CODER_URL": self.url("coder"),
            "GENERAL_URL": self.url("general"),
            **settings,
        }

    def url(self, name: str) -> str:
        """Where one of the processes listens."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name: str, *arguments: str, **settings: str) -> None:
        """Start the router, the chat app or a staged engine."""
        if name in ("router", "ui"):
            command = ["-m", name]
        else:
            command = ["-m", "loadtests.staged", "--port", str(self.ports[name]), "--model", name]
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=ROOT,
            env=os.environ | self.settings | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def ready(self, *models: str) -> None:
        """Wait until these models and the chat app serve."""

        def serve() -> bool:
            states = fetch(f"{self.url('router')}/ready")["models"]
            return all(states[model]["state"] == "ready" for model in models)

        wait_for(serve, f"the router did not become ready: {self.log('router')}")
        wait_for(lambda: fetch(f"{self.url('ui')}/_stcore/health"), f"no chat app: {self.log('ui')}")

    def staged(self, model: str, **knobs: Any) -> Any:
        """What a staged engine did so far; with `knobs`, how it answers from now on."""
        if knobs:
            fetch(f"{self.url(model)}/staged", knobs)
        return fetch(f"{self.url(model)}/staged")

    def reset(self) -> None:
        """Forget what the staged engines were told and asked."""
        for model in ("coder", "general"):
            fetch(f"{self.url(model)}/staged", method="DELETE")

    def log(self, name: str) -> str:
        """The end of a process's output."""
        return (self.folder / f"{name}.log").read_text()[-2000:]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one process."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def stop(self) -> None:
        """End every process."""
        for name in list(self.processes):
            self.kill(name)


def unreachable(url: str) -> bool:
    """Whether nobody listens at `url` any more."""
    try:
        fetch(url)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return True
    return False
