"""Starts temporary services, routers and engines, on free ports and apart from the user's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dotenv import dotenv_values

from loadtests.measure.connection import Connection
from loadtests.settings import ROOT, Target
from loadtests.workload.request import LoadRequest


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback interface that nobody uses now."""
    with ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            sock = open_sockets.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


@contextmanager
def own_home(logs: Path, **settings: str) -> Iterator[Path]:
    """A home folder with free ports and `settings` in its .env; at the end the service stops and `logs` gets
    its logs.
    """
    with tempfile.TemporaryDirectory(prefix="duoserve-bench-") as name:
        home = Path(name)
        router, ui, coder, general = free_ports(4)
        settings = {
            "PROFILE": os.environ.get("PROFILE", "cpu"),
            "ROUTER_PORT": str(router),
            "UI_PORT": str(ui),
            "CODER_URL": f"http://127.0.0.1:{coder}",
            "GENERAL_URL": f"http://127.0.0.1:{general}",
        } | settings
        lines = [f"{name}={value}" for name, value in settings.items()]
        (home / ".env").write_text("\n".join(lines) + "\n")
        try:
            yield home
        finally:
            down(home)
            logs.mkdir(parents=True, exist_ok=True)
            for path in (home / "data" / "logs").glob("*.log"):
                shutil.copy(path, logs)


def up(home: Path) -> float:
    """Start the service of `home`, printing what it says; returns the seconds until every model answered.

    Raises ConnectionError with the last lines of `./run up` when it does not start.
    """
    began = time.monotonic()
    lines: deque[str] = deque(maxlen=8)
    with subprocess.Popen(
        [str(ROOT / "run"), "up", "--detach"],
        cwd=ROOT,
        env=os.environ | {"DUOSERVE_HOME": str(home)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout  # noqa: S101 - a pipe was asked for
        for line in process.stdout:
            print("  " + line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    if process.returncode:
        raise ConnectionError("./run up failed:\n" + "".join(lines).rstrip())
    return time.monotonic() - began


def down(home: Path) -> None:
    """Stop the service of `home`."""
    environment = os.environ | {"DUOSERVE_HOME": str(home)}
    subprocess.run([str(ROOT / "run"), "down"], cwd=ROOT, env=environment, capture_output=True)


def target_of(home: Path) -> Target:
    """The service of `home`."""
    values = {name: value or "" for name, value in dotenv_values(home / ".env").items()}
    engines = {"coder": [values["CODER_URL"]], "general": [values["GENERAL_URL"]]}
    url = f"http://127.0.0.1:{values['ROUTER_PORT']}"
    return Target(url, values["LITELLM_MASTER_KEY"], values["PROFILE"], engines)


@contextmanager
def router_before(engine_url: str, profile: str) -> Iterator[tuple[Target, int]]:
    """A temporary router in front of the engine at `engine_url`; yields it and its process id.

    Raises ConnectionError when it is not installed, or not ready within a minute.
    """
    python = ROOT / ".envs" / "router" / "bin" / "python"
    if not python.exists():
        raise ConnectionError("the router is not installed: ./run setup router")
    (port,) = free_ports(1)
    key = "sk-" + os.urandom(24).hex()
    with tempfile.TemporaryDirectory(prefix="duoserve-relay-") as home:
        defaults = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
        environment = (
            os.environ
            | defaults
            | {
                "LITELLM_MASTER_KEY": key,
                "PROFILE": profile,
                "BIND_ADDRESS": "127.0.0.1",
                "ROUTER_PORT": str(port),
                "CODER_URL": engine_url,
                "GENERAL_URL": engine_url,
                "DUOSERVE_HOME": home,
            }
        )
        target = Target(f"http://127.0.0.1:{port}", key, profile, {"coder": [engine_url]})
        log = Path(home) / "router.log"
        with (
            log.open("w") as output,
            subprocess.Popen(
                [str(python), "-m", "router"], cwd=ROOT, env=environment, stdout=output, stderr=output
            ) as process,
        ):
            try:
                _wait_for_answer(target, process, log)
                yield target, process.pid
            finally:
                process.terminate()


def _wait_for_answer(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    body = {
        "model": "coder",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        "stream": True,
    }
    request = LoadRequest("probe", "/v1/chat/completions", body)
    connection = Connection(target.url, target.key, timeout=10)
    deadline = time.monotonic() + 60
    while not connection.measure(request).ok:
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConnectionError(
                "the router did not start:\n" + "\n".join(log.read_text().splitlines()[-5:])
            )
        time.sleep(0.2)
    connection.close()
