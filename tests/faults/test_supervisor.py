"""The supervisor with services that only print, on machines and in folders that are not as expected."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.stack.settings import Settings, load
from services.stack.supervision.processes import end, marked
from services.stack.supervision.supervisor import Supervisor
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.waiting import wait_for

# Each with what breaks a configuration file, a command line or a Unix socket.
FOLDERS = [
    "a #b",
    "a ;b",
    "50% of %(here)s",
    'it\'s "quoted"',
    "Größe 大",
    "$HOME `x` \\ *",
    "long " * 40,
    "a,b=c:d",
]
PRINT = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(600)"

Start = Callable[[Path], Supervisor]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a stack at a folder, with a program that prints its environment as each service."""
    started: list[Supervisor] = []

    def command(self: Supervisor, name: str) -> list[str]:
        return [sys.executable, "-c", PRINT]

    def start(home: Path) -> Supervisor:
        home.mkdir(parents=True, exist_ok=True)
        names = ("ROUTER_PORT", "UI_PORT")
        lines = [f"{name}={free_port()}" for name in names]
        lines += [f"{name}_URL=http://127.0.0.1:{free_port()}" for name in ("CODER", "GENERAL")]
        (home / ".env").write_text("\n".join([*lines, "LITELLM_MASTER_KEY=sk-the-key"]) + "\n")
        started.append(Supervisor(load(home)))
        started[-1].start(detached=True)
        return started[-1]

    monkeypatch.setattr(Supervisor, "_command", command)
    yield start
    for each in started:
        each.stop()


def _printed(home: Path, *services: str) -> dict[str, str]:
    """The environment that the first of the services to start printed."""

    def found() -> str:
        logs = [home / "data" / "logs" / f"{service}.log" for service in services]
        lines = [line for log in logs if log.exists() for line in log.read_text().splitlines(keepends=True)]
        return next((line for line in lines if line.startswith("{") and line.endswith("\n")), "")

    environment: dict[str, str] = json.loads(wait_for(found, f"{services} printed their environment"))
    return environment


@pytest.mark.parametrize("name", FOLDERS)
def test_services_start_in_any_folder_and_from_any_checkout(
    start: Start, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name / "home"
    python = tmp_path / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    supervisor = start(home)
    assert _printed(home, "ui")["DUOSERVE_HOME"] == str(home)
    assert supervisor.stop() and marked(home) == []


def test_what_a_shell_holds_for_other_programs_does_not_reach_the_services(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {
        "VLLM_API_KEY": "x",
        "VLLM_PORT": "1",
        "DATABASE_URL": "postgres://x",
        "SSL_CERT_FILE": "/gone.pem",
        "REQUESTS_CA_BUNDLE": "/gone.pem",
        "ALL_PROXY": "socks://proxy:1",
        "HTTPS_PROXY": "http://proxy:1",
        "http_proxy": "http://proxy:1",
        "NO_PROXY": "::1/128",
        "STREAMLIT_SERVER_PORT": "1",
        "STREAMLIT_SERVER_BASE_URL_PATH": "x",
        "PYTHONWARNINGS": "error",
        "LITELLM_LOG": "DEBUG",
        "OPENAI_API_KEY": "x",
        "OMP_NUM_THREADS": "999",
        "HF_ENDPOINT": "http://x",
        "REDIS_HOST": "x",
        "QUEUE_MAX": "0",
        "UVICORN_PORT": "1",
        "LD_PRELOAD": "",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    start(tmp_path)
    engines = ("coder", "general")  # one waits until the other is ready, and these never are
    for services in (engines, ("router",), ("ui",)):
        printed = _printed(tmp_path, *services)
        assert {name for name in foreign if printed.get(name) == foreign[name]} == set()
        assert printed["TZ"] == "Asia/Tokyo" and printed["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert printed["PATH"] and printed["HOME"]
    assert _printed(tmp_path, "router")["QUEUE_MAX"] == "100"
    assert _printed(tmp_path, "router")["LITELLM_MASTER_KEY"] == "sk-the-key"
    assert "sk-the-key" not in _printed(tmp_path, *engines).values()


def test_a_shell_without_home_and_locale_is_enough(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    start(tmp_path)
    printed = _printed(tmp_path, "router")
    assert Path(printed["HOME"]).is_dir() and printed["PYTHONUTF8"] == "1"


def test_two_checkouts_do_not_touch_each_other(start: Start, tmp_path: Path) -> None:
    """One's folder begins with the name of the other's."""
    homes = [tmp_path / "duoserve", tmp_path / "duoserve2", tmp_path / "duoserve" / "data" / "copy"]
    stacks = [start(home) for home in homes]
    for home in homes:
        assert _printed(home, "router")["DUOSERVE_HOME"] == str(home)
    before = [{process.pid for process in marked(home)} for home in homes]
    assert all(before) and not set.intersection(*before)
    assert stacks[0].stop() and marked(homes[0]) == []
    for home, stack, pids in zip(homes[1:], stacks[1:], before[1:], strict=True):
        assert stack.running()
        assert pids <= {process.pid for process in marked(home)}


def test_a_disk_that_is_full_or_read_only_keeps_nothing_from_starting_and_stopping(
    start: Start, tmp_path: Path
) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(logs)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a small file system")
    try:
        with contextlib.suppress(OSError):
            (logs / "other").write_bytes(b"x" * 100_000)
        for option in ("rw", "ro"):
            subprocess.run(["mount", "-o", f"remount,{option}", str(logs)], check=True)
            stack = start(tmp_path)
            wait_for(
                lambda: [state for state in stack.states() or () if state.pid][3:],  # noqa: B023
                "all four services run",
            )
            assert stack.stop() and marked(tmp_path) == []
    finally:
        subprocess.run(["umount", "--lazy", str(logs)], check=True)


def test_one_that_cannot_be_reached_ends_its_services_in_order(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = start(tmp_path)
    wait_for(supervisor.running, "the supervisor answers")
    supervisor._socket.unlink()
    killed: list[psutil.Process] = []

    def kill(processes: list[psutil.Process]) -> None:
        killed.extend(processes)
        end(processes)

    monkeypatch.setattr("services.stack.supervision.supervisor.end", kill)
    assert supervisor.stop() and killed == [] == marked(tmp_path)


def test_one_that_is_stopped_while_it_starts_its_services_kills_none(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its children takes its time to become a guard."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(2))\n"
    )
    environment = Supervisor._environment
    monkeypatch.setattr(
        Supervisor, "_environment", lambda self: environment(self) | {"PYTHONPATH": str(slow)}
    )
    home = tmp_path / "home"
    supervisor = start(home)
    wait_for(lambda: [state for state in supervisor.states() or () if state.pid][3:], "all are started")
    assert supervisor.stop() and marked(home) == []
    log = (home / "data" / "logs" / "supervisor.log").read_text()
    assert "stopped: ui" in log and "SIGKILL" not in log


def test_files_with_the_key_are_for_their_owner(start: Start, tmp_path: Path) -> None:
    start(tmp_path)
    with_key = [path for path in (tmp_path / "data" / "run").iterdir() if "sk-the-key" in path.read_text()]
    assert with_key and all(path.stat().st_mode & 0o077 == 0 for path in with_key)


def test_what_runs_keeps_its_settings_until_it_is_stopped(start: Start, tmp_path: Path) -> None:
    supervisor = start(tmp_path)
    before = supervisor.settings.variables
    stack = Stack(tmp_path)
    (tmp_path / ".env").write_text("ROUTER_PORT: 1\n")
    again = Supervisor(Settings(tmp_path, {}))
    names = {state.name for state in wait_for(again.states, "the supervisor answers") or ()}
    assert names == {"coder", "general", "router", "ui"}
    recorded = again.settings.recorded()
    assert recorded and recorded.variables == before
    status = stack.run("status")
    assert status.stderr == "" and before["ROUTER_PORT"] in status.stdout
    assert "Duoserve is down" in stack.run("down").stdout
    assert stack.processes() == [] and again.settings.recorded() is None


def test_one_that_was_stopped_did_not_crash_and_one_that_was_killed_did(start: Start, tmp_path: Path) -> None:
    stopped = start(tmp_path / "a")
    wait_for(stopped.running, "the supervisor answers")
    Supervisor(Settings(tmp_path / "a", {})).stop()
    assert stopped.states() is None and not stopped.crashed()
    killed = start(tmp_path / "b")
    wait_for(killed.running, "the supervisor answers")
    assert killed._process is not None
    killed._process.kill()
    killed.stop()
    assert killed.crashed()
