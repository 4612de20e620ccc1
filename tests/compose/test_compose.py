"""`docker compose --profile cpu up` on a real Docker engine: to the first answer, and back from a crash.

Also, without engines, what outlives the containers, and a remote model.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

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
# Of the router: with whom it has a connection that it opened itself, as address and port.
PEERS = """
import socket, struct
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").read().splitlines()[1:]:
        (_, own), (other, port) = (part.split(":") for part in line.split()[1:3])
        address = socket.inet_ntoa(struct.pack("<I", int(other[-8:], 16)))
        if int(own, 16) != 4000 and int(port, 16) and not address.startswith("127."):
            print(address, int(port, 16))
"""
# Of the chat app: what is in its folder of conversations, as it is on the disk.
STORED = """
import json
from pathlib import Path
root = Path("/app/data/sync")
for path in (root, *sorted(root.rglob("*"))):
    stat, content = path.stat(), path.read_bytes().hex() if path.is_file() else ""
    print(json.dumps([str(path.relative_to(root)), oct(stat.st_mode & 0o777), stat.st_uid, content]))
"""
KEY = "c7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
ANN = "sk-ann-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
PROVIDERS_KEY = "sk-the-provider-s-own-key"
UP = ("up", "--detach", "--no-build", "--pull", "never")
PATIENCE = 1200  # seconds for a container to become healthy on a machine that is busy with other work
MONITORING = ("--profile", "monitoring")
SERVICES = ("coder-cpu", "general-cpu", "router-cpu", "ui")
LIGHT = ("router-cpu", "ui", "provider")
CONVERSATION = {"id": "c0nversat10n", "title": "Where is the hidden door?"}
# Another company's service, as the router's container sees it.
PROVIDER = {
    "image": "duoserve/router",
    "profiles": ["cpu"],
    "entrypoint": [".envs/router/bin/python", "-m", "mock_engine"],
    "command": ["--host=0.0.0.0", "--port=8000", "--model=qwen", f"--api-key={PROVIDERS_KEY}"],
    "volumes": [f"{ROOT}/mock_engine:/app/mock_engine:ro"],
    "networks": ["front"],
    "healthcheck": {
        "test": ["CMD", "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000))"],
        "interval": "5s",
    },
}


class Project:
    """The compose project in a copy of what Compose reads, under a name and on ports of its own."""

    def __init__(self, docker: Docker, folder: Path, name: str, more: dict[str, Any] | None = None) -> None:
        """`more` are services beside its own."""
        self.docker, self.folder = docker, folder
        for file in ("compose.yaml", ".env.example"):
            shutil.copy(ROOT / file, folder)
        shutil.copytree(ROOT / "config", folder / "config")
        folder.chmod(0o755)
        self.router_port, self.ui_port = free_port(), free_port()
        (folder / ".env").write_text(
            f"LITELLM_MASTER_KEY={KEY}\nROUTER_PORT={self.router_port}\nUI_PORT={self.ui_port}\n"
        )
        stand_ins = {service: {"image": image} for service, image in docker.stand_ins.items()}
        (folder / "stand-ins.yaml").write_text(json.dumps({"services": stand_ins | (more or {})}))
        self._command = [str(COMPOSE), "--project-directory", str(folder), "-p", name]
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
        return subprocess.Popen(
            [*self._command, *UP, "--wait"],
            env=self.docker.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def up(self, *services: str) -> None:
        """Start these, and wait until they are healthy."""
        self(*UP, *services)
        wait_for(lambda: all(map(self.healthy, services)), f"{', '.join(services)} are healthy", PATIENCE)

    def set(self, **variables: str) -> None:
        """Set what is not yet set in .env."""
        with (self.folder / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    def python(self, service: str, room: str, program: str) -> list[str]:
        """What a program prints in a service's container, as its user."""
        return self("exec", "-T", service, f".envs/{room}/bin/python", "-c", program).splitlines()

    def container(self, service: str) -> Any:
        (inspected,) = json.loads(self.docker("inspect", self("ps", "-aq", service).strip()))
        return inspected

    def healthy(self, service: str) -> bool:
        """Whether its health check succeeds."""
        return bool(self.container(service)["State"]["Health"]["Status"] == "healthy")

    def state(self, model: str) -> str:
        """What the router says of a model; empty while nothing answers."""
        try:
            return str(httpx.get(f"{self.url}/ready", timeout=5).json()["models"][model]["state"])
        except httpx.TransportError:
            return ""

    def models(self) -> Any:
        """The entries of /v1/models, by name."""
        answer = httpx.get(f"{self.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        return {entry["id"]: entry for entry in answer.json()["data"]}

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


@contextmanager
def ended(project: Project) -> Iterator[Project]:
    """With nothing left of it when the context is left."""
    try:
        yield project
    finally:
        print(f"\n{project('logs', '--tail', '15')}", flush=True)
        project("--profile", "*", "down", "--volumes", "--timeout", "20")


@pytest.fixture
def project(docker: Docker, tmp_path: Path) -> Iterator[Project]:
    with ended(Project(docker, tmp_path, "duoserve-test")) as project:
        yield project


@pytest.fixture
def without_engines(docker: Docker, tmp_path: Path) -> Iterator[Project]:
    """Router and chat app, and a provider that nobody asks yet."""
    with ended(Project(docker, tmp_path, "duoserve-light", {"provider": PROVIDER})) as project:
        yield project


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
    _nothing_leaves(project)
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


def test_conversations_outlive_their_containers_and_a_remote_model_joins(without_engines: Project) -> None:
    project = without_engines
    keys = project.folder / "config" / "keys.yaml"
    keys.write_text(f"ann: {ANN}\n")
    if os.geteuid() == 0:  # as docs/operations.md says
        os.chown(keys, 10001, 10001)
        keys.chmod(0o600)
    project.set(KEYS_FILE="config/keys.yaml")
    project.up(*LIGHT)
    first = project.container("ui")["Id"]
    # As it is delivered, nothing leaves the machine.
    assert project.ask("coder").status_code == 503 and project.ask("lab").status_code == 404
    assert not any(model["remote"] for model in project.models().values())
    assert _asked(project) == []
    stored = _sync(project)

    path = project.folder / "config" / "litellm.yaml"
    config = yaml.safe_load(path.read_text())
    parameters = {"model": "openai/qwen", "api_base": "http://provider:8000/v1"}
    parameters |= {"api_key": "os.environ/LAB_KEY"}
    config["model_list"].append({"model_name": "lab", "litellm_params": parameters})
    path.write_text(yaml.safe_dump(config))
    project.set(LAB_KEY=PROVIDERS_KEY)
    project("down", "--timeout", "20")
    project.up(*LIGHT)
    assert project.container("ui")["Id"] != first
    _is_still_there(project, stored)
    _the_remote_model_answers(project)


def _sync(project: Project) -> dict[str, str]:
    """Store a conversation as Ann's browser does. The name and version of its file, for the app only."""
    with _signed_in(project) as app:
        answer = app.post("/sync", json=CONVERSATION, headers={"if-none-match": "*"})
    assert answer.status_code == 200, answer.text
    stored: dict[str, str] = answer.json()
    root, folder, file = map(json.loads, project.python("ui", "ui", STORED))
    assert [entry[1] for entry in (root, folder, file)] == ["0o700", "0o700", "0o600"]
    assert {entry[2] for entry in (root, folder, file)} == {10001}
    assert file[0] == f"{folder[0]}/{stored['name']}" and b"door" not in bytes.fromhex(file[3])
    return stored


def _is_still_there(project: Project, stored: dict[str, str]) -> None:
    """And can be changed."""
    with _signed_in(project) as app:
        assert app.get("/sync").json() == {stored["name"]: stored["etag"]}
        assert app.get(f"/sync/{stored['name']}").json() == CONVERSATION
        changed = app.post("/sync", json=CONVERSATION, headers={"if-match": f'"{stored["etag"]}"'})
    assert changed.status_code == 200 and changed.json()["etag"] != stored["etag"], changed.text


def _the_remote_model_answers(project: Project) -> None:
    """It is shown as remote, asked with the key from .env, and only the router has that key."""
    ready = httpx.get(f"{project.url}/ready")
    status = ready.json()["models"]["lab"]
    assert (ready.status_code, status["state"], status["reason"]) == (200, "ready", "remote: openai answers")
    remote = {name: model["owned_by"] for name, model in project.models().items() if model["remote"]}
    assert remote == {"lab": "openai"}
    answer = project.ask("lab")
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"], answer.text
    assert project.ask("coder").status_code == 503
    (asked,) = _asked(project)
    assert (asked["path"], asked["body"]["model"]) == ("/v1/chat/completions", "qwen")
    environments = {service: str(project.container(service)["Config"]["Env"]) for service in LIGHT}
    assert [name for name, each in environments.items() if PROVIDERS_KEY in each] == ["router-cpu"]
    assert PROVIDERS_KEY not in project("logs", "router-cpu")


@contextmanager
def _signed_in(project: Project) -> Iterator[httpx.Client]:
    """A browser that has signed in to the chat app with Ann's key."""
    with httpx.Client(base_url=project.ui_url) as browser:
        answer = browser.post("/sign-in", data={"key": ANN})
        assert answer.status_code == 303, answer.text
        yield browser


def _asked(project: Project) -> Any:
    """What the provider was asked."""
    state = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/mock').read().decode())"
    (line,) = project.python("provider", "router", state)
    return json.loads(line)["requests"]


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


def _nothing_leaves(project: Project) -> None:
    """Without remote models the router talks to the engines, and to nobody else."""
    engines = {f"{_address(project, service)} 8000" for service in ("coder-cpu", "general-cpu")}
    peers = set(project.python("router-cpu", "router", PEERS))
    assert peers and peers <= engines


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
