"""`./run`, pixi and Nix offer the same tasks and the same toolchain, and refuse a machine in one line."""

import argparse
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.stack.commands.check import STATIC
from services.stack.environments import ROOT
from services.stack.settings import EXAMPLE
from services.stack.tasks import TASKS, Task
from tests.support.stack import Stack

PIXI: dict[str, Any] = tomllib.loads((ROOT / "pixi.toml").read_text())


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./run", *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


def test_pixi_has_the_tasks_of_run() -> None:
    assert set(TASKS) >= {"up", "status", "logs", "down", "doctor", "test"}
    assert PIXI["tasks"] == {
        task.name: {"cmd": f"./run {task.name}", "description": task.help[0].upper() + task.help[1:]}
        for task in TASKS.values()
    }


def test_the_readme_has_the_tasks_of_run() -> None:
    """Each row has the name, the help, and those arguments that are worth mentioning."""
    rows = re.findall(r"^\| `([a-z-]+)(.*?)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert [(name, text) for name, _, text in rows] == [(task.name, task.help) for task in TASKS.values()]
    for name, synopsis, _ in rows:
        mentioned = set(re.findall(r"(?<!-)--?[a-z]+", synopsis))
        verb = ["fetch"] if name == "models" else []
        if mentioned and not TASKS[name].forwards:
            assert mentioned <= set(re.findall(r"(?<!\w)--?[a-z]+", _run(name, *verb, "-h").stdout)), name


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_takes_what_its_parser_gives_it(task: Task) -> None:
    parser = argparse.ArgumentParser()
    if task.arguments:
        task.arguments(parser)
    given = {"arguments"} if task.forwards else set()
    given |= set(_destinations(parser))
    inspect.signature(task.load()).bind(**dict.fromkeys(given))


def _destinations(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                yield from _destinations(choice)
        if action.dest != "help":
            yield action.dest


@pytest.mark.parametrize("task", TASKS)
def test_every_task_helps(task: str) -> None:
    helped = _run(task, "-h")
    assert helped.returncode == 0 and "usage" in helped.stdout.lower()


@pytest.mark.skipif(shutil.which("nix") is None, reason="nix is not installed")
def test_flake_evaluates(tmp_path: Path) -> None:
    """Without a network: nixpkgs is a stub that has only what the flake asks for."""
    flake = tmp_path / "flake"
    flake.mkdir()
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(ROOT / name, flake)
    stub = Path(__file__).parent / "nixpkgs-stub"
    answer = subprocess.run(
        ["nix", "--extra-experimental-features", "nix-command flakes", "--offline", "flake", "check"]
        + ["--no-build", f"path:{flake}", "--override-input", "nixpkgs", f"path:{stub}"],
        env=os.environ
        | {"HOME": str(tmp_path), "NIX_STORE_DIR": str(tmp_path / "store")}
        | {"NIX_STATE_DIR": str(tmp_path / "state"), "NIX_LOG_DIR": str(tmp_path / "log")},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    locked = json.loads((ROOT / "flake.lock").read_text())["nodes"]["nixpkgs"]["locked"]
    assert re.fullmatch(r"[0-9a-f]{40}", locked["rev"])


def test_every_setting_is_explained() -> None:
    """Each assignment in .env.example stands under a comment."""
    explained = False
    for line in EXAMPLE.read_text().splitlines():
        if not line:
            explained = False
        elif line.startswith("#"):
            explained = True
        else:
            assert re.fullmatch(r"[A-Z0-9_]+=.*", line), line
            assert explained, f"{line} has no comment above it"


def test_cuda_without_a_gpu_stops_with_one_line(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    up = Stack(tmp_path).run("up", "--engine", "cuda")
    assert up.returncode == 1
    assert re.fullmatch(r"duoserve: No NVIDIA GPU found .*\n", up.stderr)
    assert up.stdout == ""


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    """A copy of ./run alone, on a machine that has neither Python 3.11 nor uv."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (
        "bash",
        "uname",
        "readlink",
        "dirname",
        "sha256sum",
        "cut",
        "cat",
        "mkdir",
        "flock",
        "rm",
        "env",
    ):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    shutil.copy(ROOT / "run", tmp_path)
    lock = tmp_path / "services" / "stack" / "requirements.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    answer = subprocess.run(
        [str(tmp_path / "run"), "up"], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert re.search(r"duoserve: Python 3\.11 is missing\. Install it .* uv", answer.stderr)


def test_lint_and_types_are_clean() -> None:
    assert set(STATIC) == {"lint", "format", "types"}
    for command in STATIC.values():
        answer = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout + answer.stderr
