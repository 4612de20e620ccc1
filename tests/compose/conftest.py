"""A Docker engine and a base image: the machine's own where there is one, else made (Debian, as root)."""

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.waiting import wait_for

COMPOSE = Path(sys.executable).with_name("docker-compose")
_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}
# What the Dockerfiles expect of python:3.11-slim-bookworm, from Debian's own packages.
_BASE = "duoserve/test-base:bookworm"
_IN_BASE = (
    "python3.11,python3.11-venv,python3-pip-whl,python3-setuptools-whl,python3-distutils,ca-certificates"
)
_PROMETHEUS = "duoserve/test-prometheus"
_PROMETHEUS_DOCKERFILE = f"""FROM {_BASE}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus wget
RUN install -d -o nobody /prometheus
USER nobody
"""
_REGISTRY_IMAGE = "python:3.11-slim-bookworm"
_CLONE_NEWNET = 0x40000000  # linux/sched.h


def run(command: Sequence[str], seconds: float, **more: object) -> str:
    """The output of a command that must succeed within so many seconds."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


@dataclass
class Docker:
    """A Docker engine. `build_arguments` go to every build, `timings` holds seconds by step, `stand_ins` what
    runs in place of a service's image.
    """

    environment: dict[str, str]
    build_arguments: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, seconds: float = 300) -> str:
        return run(["docker", *arguments], seconds, env=self.environment)

    def answers(self) -> bool:
        done = subprocess.run(["docker", "info"], env=self.environment, capture_output=True)
        return done.returncode == 0

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Notes how long the step took, and says so."""
        began = time.monotonic()
        yield
        self.timings[step] = time.monotonic() - began
        print(f"\n{self.timings[step]:6.0f} s  {step}", flush=True)

    def size(self, image: str) -> float:
        """Of an image, in GB."""
        return int(json.loads(self("image", "inspect", image))[0]["Size"]) / 1e9


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """The engine with our images built."""
    own = Docker(dict(os.environ))
    if shutil.which("docker") and own.answers():
        _build(own)
        yield own
        return
    if os.geteuid() != 0:
        pytest.fail("No Docker engine answers. Start Docker, or run as root on Debian to have one prepared.")
    _install()
    folder = tmp_path_factory.mktemp("docker")
    try:
        # Building needs this machine's network; running gets a network namespace of its own, whose bridges
        # and rules touch nothing outside it.
        with _engine(folder, "--iptables=false", "--ip6tables=false", "--bridge=none") as engine:
            engine.build_arguments += ["--network", "host"]
            _base_image(engine, folder)
            _build(engine)
            built = engine
        with _engine(folder, namespace=True) as engine:
            engine.timings, engine.stand_ins = built.timings, built.stand_ins
            yield engine
    finally:
        shutil.rmtree(folder / "data", ignore_errors=True)


def _install() -> None:
    missing = [package for program, package in _PACKAGES.items() if not shutil.which(program)]
    if missing:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], 300)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], 600, env=environment)


@contextmanager
def _engine(folder: Path, *options: str, namespace: bool = False) -> Iterator[Docker]:
    """A Docker engine with its data in `folder`; with `namespace`, this process and what it starts join its
    network while it runs.
    """
    socket = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--host", socket, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/docker.pid", "--storage-driver", "overlay2", *options]
    # What it mounts goes with it.
    if namespace:
        command = [
            "unshare",
            "--mount",
            "--net",
            "sh",
            "-c",
            'ip link set lo up && exec "$@"',
            "sh",
            *command,
        ]
    else:
        command = ["unshare", "--mount", *command]
    docker = Docker({name: value for name, value in os.environ.items() if "DOCKER" not in name})
    docker.environment |= {"DOCKER_HOST": socket, "DOCKER_BUILDKIT": "0"}
    with (folder / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or docker.answers(), "the Docker engine answers")
        assert process.poll() is None, (folder / "dockerd.log").read_text()[-3000:]
        if not namespace:
            yield docker
            return
        with Path("/proc/self/ns/net").open() as own, Path(f"/proc/{process.pid}/ns/net").open() as its:
            _join(its.fileno())
            try:
                yield docker
            finally:
                _join(own.fileno())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _join(namespace: int) -> None:
    """Move this thread into a network namespace (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _base_image(docker: Docker, folder: Path) -> None:
    """Without a registry: Debian with Python 3.11 stands in for the official Python image."""
    pulled = subprocess.run(
        ["docker", "pull", "--quiet", _REGISTRY_IMAGE],
        env=docker.environment,
        capture_output=True,
        timeout=300,
    )
    if pulled.returncode == 0:
        return
    root = folder / "base"
    with docker.timed("base image (no registry is reachable)"):
        run(["debootstrap", "--variant=minbase", f"--include={_IN_BASE}", "bookworm", str(root)], 600)
        (root / "usr/bin/python3").unlink(missing_ok=True)
        (root / "usr/bin/python3").symlink_to("python3.11")
        variables = _mirror_variables(root)
        changes = [a for name, value in variables.items() for a in ("--change", f"ENV {name}={value}")]
        archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        run(["docker", "import", *changes, "-", _BASE], 300, env=docker.environment, stdin=archive.stdout)
        assert archive.wait() == 0
    shutil.rmtree(root)
    docker.build_arguments += ["--build-arg", f"PYTHON_IMAGE={_BASE}"]
    with docker.timed("Debian's Prometheus in place of the official image"):
        command = ["docker", "build", "--quiet", "--network", "host", "-t", _PROMETHEUS, "-"]
        run(command, 600, env=docker.environment, input=_PROMETHEUS_DOCKERFILE)
    docker.stand_ins["prometheus"] = _PROMETHEUS


def _mirror_variables(root: Path) -> dict[str, str]:
    """How pip and uv reach packages on this machine, with the files that these settings name."""
    named = (
        "PIP_FIND_LINKS",
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "SSL_CERT_FILE",
        "PIP_CERT",
    )
    variables = {name: os.environ[name] for name in named if os.environ.get(name)}
    for value in set(variables.values()):
        path = Path(value)
        if path.is_absolute() and path.exists():
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)
    return variables


def _build(docker: Docker) -> None:
    for name, dockerfile in (("engine-cpu", "services/engine"), ("router", "router"), ("ui", "ui")):
        image = f"duoserve/{name}"
        command = [
            "build",
            "--quiet",
            "-t",
            image,
            "-f",
            f"{dockerfile}/Dockerfile",
            *docker.build_arguments,
            ".",
        ]
        with docker.timed(f"build of {image}"):
            run(["docker", *command], 1800, env=docker.environment, cwd=ROOT)
        print(f"{docker.size(image):6.1f} GB {image}", flush=True)
