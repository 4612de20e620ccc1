"""`./run` in a shell, with settings and in folders that are not as expected. No engine starts."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from router.app import check
from router.errors import BadSettings
from router.settings import read_settings
from services.stack.commands.up import check_router
from services.stack.failure import Failure
from services.stack.settings import Settings, ensure_key, load
from tests.support import ROOT
from tests.support.stack import Stack


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./run", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "--vram", "0"], "--vram"),
        (["plan", "--vram", "-3"], "--vram"),
        (["plan", "--vram", "nan"], "--vram"),
    ],
)
def test_an_impossible_argument_is_named(tmp_path: Path, arguments: list[str], told: str) -> None:
    answer = _run(*arguments, DUOSERVE_HOME=str(tmp_path))
    assert answer.returncode != 0 and told in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONPATH": "/nonexistent:services/stack", "PYTHONHOME": "/nonexistent"},
        {"PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"},
        {"LC_ALL": "C", "LANG": "", "PYTHONIOENCODING": "ascii"},
        {"HOME": ""},
    ],
)
def test_the_shell_of_another_project_changes_nothing(tmp_path: Path, variables: dict[str, str]) -> None:
    answer = _run("status", DUOSERVE_HOME=str(tmp_path / "Größe"), **variables)
    assert answer.returncode == 1 and "models: coder down" in answer.stdout
    assert answer.stderr == ""


@pytest.mark.parametrize("arguments", ["status", "status --json", "doctor", "ide", "-h", "plan"])
def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, arguments: str) -> None:
    line = f"./run {arguments} | head -c1 >/dev/null"
    environment = os.environ | {"DUOSERVE_HOME": str(tmp_path)}
    answer = subprocess.run(line, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.stderr == ""


@pytest.mark.parametrize("text", ["ROUTER_PORT: 1\n", "NO_SUCH=1\n", "PROFILE=\n", "\udce9\n"])
def test_what_runs_can_be_read_and_stopped_whatever_the_settings_say(tmp_path: Path, text: str) -> None:
    stack = Stack(tmp_path)
    (tmp_path / ".env").write_bytes(text.encode(errors="surrogateescape"))
    logs = Settings(tmp_path, {}).logs
    logs.mkdir(parents=True)
    (logs / "router.log").write_text("what it says\n")
    assert "what it says" in stack.run("logs", "router").stdout
    assert stack.run("down").returncode == 0
    for command in ("status", "doctor", "up"):
        answer = stack.run(command)
        assert answer.returncode == 1 and answer.stderr.count("\n") == 1, answer.stderr
        assert answer.stderr.startswith("duoserve: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_checkout_can_be_asked_for_help(tmp_path: Path) -> None:
    """A user who may read the checkout, and not write to it."""
    script = tmp_path / "checkout" / "run"
    for path in ("services/stack", "services/__init__.py", "run"):
        source, target = ROOT / path, tmp_path / "checkout" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    environment = tmp_path / "checkout" / ".envs" / "stack"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").write_text('#!/bin/sh\necho "$@"\n')
    (environment / "bin" / "python").chmod(0o755)
    digest = hashlib.sha256((ROOT / "services" / "stack" / "requirements.lock").read_bytes()).hexdigest()
    (environment / ".lock-digest").write_text(digest)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(script), "-h"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0 and "services.stack -h" in answer.stdout, answer.stderr
    (environment / ".lock-digest").unlink()
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1 and "ask its owner" in answer.stderr and answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("QUEUE_MAX=lots", "QUEUE_MAX"),
        ("TRUNCATE=perhaps", "TRUNCATE"),
        ("MODEL_ALIASES=gpt=general", "MODEL_ALIASES"),
        ("LITELLM_CONFIG=/nonexistent", "LITELLM_CONFIG"),
        ("REDIS_URL=localhost", "REDIS_URL"),
        ("LITELLM_MASTER_KEY=short", "LITELLM_MASTER_KEY"),
        ("KEYS_FILE=/nonexistent", "KEYS_FILE"),
        ("KEYS_FILE=/bin/true", "KEYS_FILE"),
    ],
)
def test_a_wrong_setting_of_the_router_is_one_line_before_anything_starts(
    tmp_path: Path, line: str, told: str
) -> None:
    ensure_key(tmp_path, lambda _: None)
    settings = load(tmp_path)
    name, value = line.split("=", 1)
    with pytest.raises(Failure) as failure:
        check_router(Settings(tmp_path, settings.variables | {name: value}))
    assert str(failure.value).startswith(told) and "\n" not in str(failure.value)


@pytest.mark.parametrize("name", dotenv_values(ROOT / ".env.example"))
def test_no_setting_takes_anything_whatever(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stack itself does not refuse, the router does when it checks its settings before the start."""
    ensure_key(tmp_path, lambda _: None)
    with (tmp_path / ".env").open("a") as settings:
        settings.write(f"{name}=?!\n")
    try:
        variables = load(tmp_path).variables
    except Failure as failure:
        told = str(failure)
    else:
        for each, value in variables.items():
            monkeypatch.setenv(each, value)
        with pytest.raises(BadSettings) as caught:
            check(read_settings())
        told = str(caught.value)
    assert name in told and "\n" not in told
