"""The service for one test module: router and chat app as processes, before mock engines."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dotenv import dotenv_values

from mock_engine import MockEngine
from tests.support import ROOT
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import wait_for

# How the engines answer unless a test says otherwise.
ANSWERS: Mapping[str, Any] = MappingProxyType({"itl_ms": 5, "completion_tokens": 40})
KEY = "sk-browser-tests-0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """JSON (or text) of `url`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as answer:
        if not url.endswith("/ready"):  # its status says whether all models are ready, its body which
            raise
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


class Service:
    """Processes on free ports, none of them started; `stop` ends them all."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.engines = {
            alias: MockEngine(alias, port=free_port(), log=folder / f"{alias}.log")
            for alias in ("coder", "general")
        }
        self.ports = {"router": free_port(), "ui": free_port()}
        self.processes: dict[str, Process] = {}
        defaults = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
        self.settings = defaults | {
            "LITELLM_MASTER_KEY": KEY,
            "DUOSERVE_HOME": str(folder),
            "ROUTER_PORT": str(self.ports["router"]),
            "UI_PORT": str(self.ports["ui"]),
            "ROUTER_URL": self.url("router"),
            "CODER_URL": self.engines["coder"].url,
            "GENERAL_URL": self.engines["general"].url,
            **settings,
        }

    def url(self, name: str) -> str:
        """Where the router or the chat app listens."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name: str, **settings: str) -> None:
        """Start the router or the chat app."""
        self.processes[name] = Process(
            [sys.executable, "-m", name],
            self.folder / f"{name}.log",
            os.environ | self.settings | settings,
        )

    def ready(self, *models: str) -> None:
        """Wait until these models and the chat app serve."""

        def serve() -> bool:
            states = fetch(f"{self.url('router')}/ready")["models"]
            return all(states[model]["state"] == "ready" for model in models)

        wait_for(serve, f"the router is ready; see {self.folder}/router.log", 600)
        wait_for(lambda: fetch(f"{self.url('ui')}/_stcore/health"), f"see {self.folder}/ui.log")

    def reset(self) -> None:
        """Forget what the mock engines were told and asked."""
        for engine in self.engines.values():
            engine.reset()

    def kill(self, name: str) -> None:
        """End the router or the chat app."""
        self.processes.pop(name).stop(signal.SIGKILL)

    def stop(self) -> None:
        """End every process."""
        for name in list(self.processes):
            self.kill(name)
        for engine in self.engines.values():
            engine.stop()


@contextmanager
def whole(folder: Path, knobs: Mapping[str, Any] = ANSWERS, **settings: str) -> Iterator[Service]:
    """A service all of whose processes run and are ready, with engines set to `knobs`; ended when the context
    is left.
    """
    service = Service(folder, **settings)
    try:
        for engine in service.engines.values():
            engine.start(**knobs)
        service.start("router")
        service.start("ui")
        service.ready("coder", "general")
        yield service
    finally:
        service.stop()


def unreachable(url: str) -> bool:
    """Whether nobody listens at `url` any more."""
    try:
        fetch(url)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return True
    return False
