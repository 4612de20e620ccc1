"""`docker compose --profile cpu up` on a real Docker engine: to the first answer, and back from a crash."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose.conftest import COMPOSE, Docker, run
from tests.support import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
# Kills the process that has the most memory: the one that runs the model.
KILL_WORKER = """
import os, signal
sizes = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{pid}/statm") as statm:
        sizes[int(statm.read().split()[1])] = int(pid)
os.kill(sizes[max(sizes)], signal.SIGKILL)
"""
KEY = "c7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
MONITORING = ("--profile", "monitoring")
SERVICES = ("coder-cpu", "general-cpu", "router-cpu", "ui")


class Project:
    """The compose project in a copy of what Compose reads, under a name and on ports of its own."""

    def __init__(self, docker: Docker, folder: Path) -> None:
        self.docker = docker
        for name in ("compose.yaml", ".env.example"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "config", folder / "config")
        folder.chmod(0o755)
        self.router_port, self.ui_port = free_port(), free_port()
        (folder / ".env").write_text(
            f"LITELLM_MASTER_KEY={KEY}\nROUTER_PORT={self.router_port}\nUI_PORT={self.ui_port}\n"
        )
        stand_ins = {service: {"image": image} for service, image in docker.stand_ins.items()}
        (folder / "stand-ins.yaml").write_text(json.dumps({"services": stand_ins}))
        self._command = [str(COMPOSE), "--project-directory", str(folder), "-p", "duoserve-test"]
        self._command += [
            "-f",
            f"{folder}/compose.yaml",
            "-f",
            f"{folder}/stand-ins.yaml",
            "--profile",
            "cpu",
        ]
        self.url = f"http://127.0.0.1:{self.router_port}"
        self.ui_url = f"http://127.0.0.1:{self.ui_port}"

    def __call__(self, *arguments: str, seconds: float = 120) -> str:
        return run([*self._command, *arguments], seconds, env=self.docker.environment)

    def start(self) -> "subprocess.Popen[str]":
        """`up --wait`, which returns when every service is healthy; left running."""
        command = [*self._command, "up", "--detach", "--wait", "--no-build", "--pull", "never"]
        return subprocess.Popen(
            command, env=self.docker.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def container(self, service: str) -> Any:
        (inspected,) = json.loads(self.docker("inspect", self("ps", "-aq", service).strip()))
        return inspected

    def state(self, model: str) -> str:
        """What the router says of a model; empty while nothing answers."""
        try:
            return str(httpx.get(f"{self.url}/ready", timeout=5).json()["models"][model]["state"])
        except httpx.TransportError:
            return ""

    def ask(self, model: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/chat/completions",
            json={
                "model": model,
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "temperature": 0,
                "max_tokens": 20,
            },
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
        )


@pytest.fixture(scope="module")
def project(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(docker, tmp_path_factory.mktemp("project"))
    try:
        yield project
    finally:
        print(f"\n{project('logs', '--tail', '15')}", flush=True)
        project("--profile", "*", "down", "--volumes", "--timeout", "20")


def test_from_nothing_to_an_answer_and_back_from_a_crash(project: Project, docker: Docker) -> None:
    before = _listening()
    began = time.monotonic()
    up = project.start()

    # The first model serves while the second has not started.
    wait_for(lambda: project.state("coder") == "ready", "coder serves", 600)
    docker.timings["up: coder ready"] = time.monotonic() - began
    assert project.state("general") == "loading"
    assert "Paris" in project.ask("coder").text
    docker.timings["up: first answer"] = time.monotonic() - began
    assert project.ask("general").status_code == 503

    output, _ = up.communicate(timeout=300)
    assert up.returncode == 0, output
    docker.timings["up: everything healthy"] = time.monotonic() - began
    assert "Paris" in project.ask("general").text
    assert httpx.get(f"{project.ui_url}/_stcore/health").status_code == 200
    assert (
        httpx.get(project.ui_url).status_code == 401
    )  # beyond loopback in its container, it asks for the key
    assert {project.container(name)["State"]["Health"]["Status"] for name in SERVICES} == {"healthy"}

    _nothing_else_is_reachable(project, before)
    _confined(project)

    _prometheus_sees_all(project)

    # A killed engine comes back by itself, and the other model serves on.
    first = project.container("coder-cpu")["State"]
    killed = time.monotonic()
    docker("exec", project.container("coder-cpu")["Id"], "python3", "-c", KILL_WORKER)
    wait_for(lambda: project.state("coder") == "down", "the router sees the model down")
    assert project.ask("coder").status_code == 503
    assert project.ask("general").status_code == 200
    wait_for(lambda: project.state("coder") == "ready", "the model serves again", 600)
    docker.timings["a killed engine serves again"] = time.monotonic() - killed
    assert "Paris" in project.ask("coder").text
    assert project.container("coder-cpu")["State"]["StartedAt"] > first["StartedAt"]

    project("--profile", "*", "down", "--volumes", "--timeout", "20")
    assert docker("ps", "-aq", "--filter", "label=com.docker.compose.project=duoserve-test") == ""
    assert _listening() == before
    for step, seconds in docker.timings.items():
        print(f"{seconds:6.0f} s  {step}", flush=True)


def _listening() -> set[int]:
    """The TCP ports that accept connections on this network namespace's loopback or all addresses."""
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A":  # listening
                ports.add(int(address.rpartition(":")[2], 16))
    return ports


def _nothing_else_is_reachable(project: Project, before: set[int]) -> None:
    """Only router and chat app are published, on loopback; the chat app's container reaches no engine."""
    assert _listening() - before == {project.router_port, project.ui_port}
    for service, port in (("router-cpu", project.router_port), ("ui", project.ui_port)):
        bindings = project.container(service)["NetworkSettings"]["Ports"].values()
        assert [(b["HostIp"], b["HostPort"]) for binding in bindings for b in binding or ()] == [
            ("127.0.0.1", str(port))
        ]
    for service in ("coder-cpu", "general-cpu"):
        assert not any(project.container(service)["NetworkSettings"]["Ports"].values())
    assert httpx.post(f"{project.url}/v1/chat/completions", json={}).status_code == 401
    reach = "import socket, sys; socket.create_connection((sys.argv[1], 8000), timeout=3)"
    for address in ("coder", _address(project, "coder-cpu")):
        asked = [*project._command, "exec", "-T", "ui", ".envs/ui/bin/python", "-c", reach, address]
        answer = subprocess.run(asked, env=project.docker.environment, capture_output=True, text=True)
        assert answer.returncode != 0
        assert (
            "gaierror" in answer.stderr or "TimeoutError" in answer.stderr or "unreachable" in answer.stderr
        )


def _prometheus_sees_all(project: Project) -> None:
    """With the key that it got, over the private network; it is published nowhere."""
    listening = _listening()
    project(*MONITORING, "up", "--detach", "--wait", "--no-build", "prometheus", seconds=300)
    assert _listening() == listening
    query = "http://127.0.0.1:9090/api/v1/query?query=up"

    def seen() -> bool:
        answer = json.loads(project(*MONITORING, "exec", "-T", "prometheus", "wget", "-q", "-O", "-", query))
        up = {
            series["metric"]["instance"] for series in answer["data"]["result"] if series["value"][1] == "1"
        }
        return up == {"router:4000", "coder:8000", "general:8000"}

    wait_for(seen, "Prometheus sees router and engines")
    project(*MONITORING, "rm", "--stop", "--force", "prometheus")


def _address(project: Project, service: str) -> str:
    networks = project.container(service)["NetworkSettings"]["Networks"].values()
    address = next(iter(networks))["IPAddress"]
    socket.inet_aton(address)
    return str(address)


def _confined(project: Project) -> None:
    """No service runs as root or can write to its image, and no image holds the key."""
    for service in SERVICES:
        container = project.container(service)
        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["ReadonlyRootfs"] and container["HostConfig"]["CapDrop"] == ["ALL"]
        assert KEY not in project.docker("history", "--no-trunc", container["Image"])
        assert container["HostConfig"]["LogConfig"]["Config"] == {"max-size": "100m", "max-file": "10"}
