"""The guard with a service that behaves as vLLM does: its processes start processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.stack.supervision.processes import marked
from tests.support import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_for

# Each prints its process id; the second has a session of its own, as a daemon would.
LEAF = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
PARENT = "import os, subprocess, sys, time; print(os.getpid(), flush=True);"
BRANCH = f"{PARENT} subprocess.Popen([sys.executable, '-c', {LEAF!r}]); time.sleep(600)"
FAMILY = (
    f"{PARENT} subprocess.Popen([sys.executable, '-c', {BRANCH!r}], start_new_session=True); time.sleep(600)"
)


def _guarded(home: Path, name: str, *command: str, temporary: str = "", **limits: Any) -> list[str]:
    """The guard's command, once what it should run is described in its file."""
    run = home / "data" / "run"
    run.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    service = {"command": command, "environment": environment, "limits": limits, "temporary": temporary}
    (run / f"{name}.json").write_text(json.dumps(service))
    return [sys.executable, "-m", "services.stack.supervision.guard", name]


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {"DUOSERVE_HOME": str(home), "LOG_DAYS": "7", "LOG_TOTAL_GB": "10"}


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(*command: str, name: str = "family", **limits: Any) -> subprocess.Popen[bytes]:
        guarded = _guarded(tmp_path, name, *command, **limits)
        process = subprocess.Popen(guarded, cwd=ROOT, env=_environment(tmp_path))
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    for stray in marked(tmp_path):
        stray.kill()


def _family(tmp_path: Path, expected: int = 3) -> list[psutil.Process]:
    log = tmp_path / "data" / "logs" / "family.log"

    def pids() -> list[str]:
        return re.findall(r"^\d+$", log.read_text(), re.M)

    wait_for(lambda: len(pids()) == expected, "all processes are up")
    return [psutil.Process(int(pid)) for pid in pids()[-3:]]


TWO_THREADS = (
    "import http.server, threading, time; threading.Thread(target=time.sleep, args=[600]).start();"
    "http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def test_a_service_yields_to_others_once_it_is_ready(tmp_path: Path) -> None:
    port = free_port()
    command = _guarded(tmp_path, "family", sys.executable, "-c", TWO_THREADS.format(port=port))
    path = tmp_path / "data" / "run" / "family.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"ready_url": f"http://127.0.0.1:{port}/", "nice": 10})
    )
    guard = subprocess.Popen(command, cwd=ROOT, env=_environment(tmp_path))
    try:
        (server,) = wait_for(lambda: psutil.Process(guard.pid).children(), "it is started")

        def priorities() -> set[int]:
            return {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in server.threads()}

        own = os.getpriority(os.PRIO_PROCESS, 0)
        lowered = min(own + 10, 19)  # there is no lower one
        wait_for(lambda: len(server.threads()) == 2 and priorities() == {lowered}, "it yields")
        assert os.getpriority(os.PRIO_PROCESS, guard.pid) == own
    finally:
        guard.terminate()
        guard.wait()


def _gone(processes: list[psutil.Process]) -> None:
    wait_for(lambda: not any(map(_runs, processes)), "all processes are gone")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_sigterm_ends_the_whole_family(guard: Start, tmp_path: Path) -> None:
    process = guard(sys.executable, "-c", FAMILY)
    family = _family(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not any(member.is_running() for member in family)


def test_sigterm_is_heard_while_the_service_is_being_started(tmp_path: Path) -> None:
    """Python ignores what a signal's handler raises while it forks."""
    *_, module, name = _guarded(tmp_path, "family", sys.executable, "-c", LEAF)
    told = (
        "import os, runpy, signal;"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM));"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", told, name], cwd=ROOT, env=_environment(tmp_path))
    try:
        assert process.wait(60) == 128 + signal.SIGTERM
        assert marked(tmp_path) == []
    finally:
        process.kill()
        process.wait()


def test_a_crash_takes_the_children_along(guard: Start, tmp_path: Path) -> None:
    process = guard(sys.executable, "-c", FAMILY)
    family = _family(tmp_path)
    family[0].kill()
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(member.is_running() for member in family)


def test_a_killed_guard_is_cleaned_up_after_by_the_next(guard: Start, tmp_path: Path) -> None:
    first = guard(sys.executable, "-c", FAMILY)
    family = _family(tmp_path)
    first.kill()
    first.wait()
    _gone(family[:1])
    assert any(member.is_running() for member in family[1:])
    guard(sys.executable, "-c", FAMILY)
    _gone(family)
    assert all(member.is_running() for member in _family(tmp_path, expected=6))


def test_what_a_killed_service_left_behind_is_gone_at_its_next_start(guard: Start, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    leave = "import os, tempfile; tempfile.mkdtemp(); os.kill(os.getpid(), 9)"
    for _ in range(2):
        assert guard(sys.executable, "-c", leave, temporary=str(folder)).wait(60) == 128 + signal.SIGKILL
        assert len(list(folder.iterdir())) == 1


def test_guards_end_with_their_supervisor(tmp_path: Path) -> None:
    """The supervisor is a shell here; it is killed, and cannot tell anyone."""
    family = _guarded(tmp_path, "family", sys.executable, "-c", FAMILY)
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script, *family],
        cwd=ROOT,
        env=_environment(tmp_path),
    )
    members = _family(tmp_path)
    supervisor.kill()
    supervisor.wait()
    _gone(members)
    assert marked(tmp_path) == []


def test_the_exit_status_and_the_log_are_the_services(guard: Start, tmp_path: Path) -> None:
    process = guard(sys.executable, "-c", "print('cannot start'); raise SystemExit(78)", name="router")
    assert process.wait(10) == 78
    assert (tmp_path / "data" / "logs" / "router.log").read_text().endswith("\ncannot start\n")


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(guard: Start, tmp_path: Path) -> None:
    """More than a pipe holds is printed while the log's file system, one of 512 KB, is full."""
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(logs)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a small file system")
    try:
        (logs / "other").write_bytes(b"x" * 480_000)
        marker = tmp_path / "done"
        chatty = (
            "import time; [print('x' * 99, flush=True) for _ in range(10_000)];"
            f"open({str(marker)!r}, 'w')\n"
            "while True: print('still here', flush=True); time.sleep(0.05)"
        )
        process = guard(sys.executable, "-c", chatty, name="router")
        wait_for(marker.exists, "the service got rid of its output")
        (logs / "other").unlink()
        log = logs / "router.log"
        wait_for(lambda: b"could not be written" in log.read_bytes(), "the log says what it lost")
        wait_for(lambda: log.read_bytes().endswith(b"\nstill here\n"), "the log goes on")
        process.terminate()
        process.wait(10)
    finally:
        subprocess.run(["umount", "--lazy", str(logs)], check=True)


def test_a_guard_without_a_description_says_so_in_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.stack.supervision.guard", "router"]
    assert subprocess.run(command, cwd=ROOT, env=_environment(tmp_path), timeout=60).returncode == 1
    assert "router.json" in (tmp_path / "data" / "logs" / "router.log").read_text()


# Answers at the port in its first argument; after a POST it holds 300 MB more, in a process that it starts.
SERVER = """
import http.server, subprocess, sys
GROW = "import time; held = bytearray(b'x') * 300_000_000; time.sleep(600)"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"models": {"coder": {"engines": [{"state": "%s"}]}}}' % sys.argv[2].encode())
    def do_POST(self):
        subprocess.Popen([sys.executable, "-c", GROW])
        self.do_GET()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def _server(state: str = "ready") -> tuple[list[str], str]:
    """A command that answers at a URL, and that URL."""
    port = free_port()
    return [sys.executable, "-c", SERVER, str(port), state], f"http://127.0.0.1:{port}"


def _asked(log: Path, times: int = 3) -> None:
    """Wait until a guard has asked the service with this log for its health, and seen it answer."""
    wait_for(lambda: log.read_text().count("GET /") >= times, "the guard has asked for its health")


def test_a_service_that_stops_answering_is_ended(guard: Start, tmp_path: Path) -> None:
    command, url = _server()
    process = guard(*command, health_url=url, silence=1)
    log = tmp_path / "data" / "logs" / "family.log"
    _asked(log)
    (service,) = psutil.Process(process.pid).children()
    service.send_signal(signal.SIGSTOP)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert "restarted: it has hung for 1 s" in log.read_text()


def test_an_engine_that_the_router_calls_down_is_ended(guard: Start, tmp_path: Path) -> None:
    """As long as the router does not answer, nothing happens to it."""
    command, url = _server("ready")
    log = tmp_path / "router.log"
    with log.open("wb") as output:
        router = subprocess.Popen(command, stderr=output)
    try:
        process = guard(sys.executable, "-c", LEAF, ready_url=url, engine=("coder", 1), silence=1)
        _asked(log)
        members = psutil.Process(process.pid).children()
        router.kill()
        router.wait()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        router = subprocess.Popen([*command[:-1], "down"], stderr=subprocess.DEVNULL)
        assert process.wait(60) == 128 + signal.SIGKILL
        _gone(members)
    finally:
        router.kill()
        router.wait()


def test_a_service_that_grows_is_ended_with_its_processes(guard: Start, tmp_path: Path) -> None:
    command, url = _server()
    process = guard(*command, health_url=url, growth=5)
    log = tmp_path / "data" / "logs" / "family.log"
    _asked(log)
    httpx.post(url)
    family = psutil.Process(process.pid).children(recursive=True)
    assert process.wait(60) == 128 + signal.SIGKILL
    _gone(family)
    assert "GB of memory, more than 5 times" in log.read_text()
