"""What `./run up` says when it cannot start."""

import fcntl
import socket
from pathlib import Path

from tests.support.stack import Stack


def test_two_starts_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    lock = tmp_path / "data" / "run" / "up.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        second = stack.run("up")
    assert second.returncode == 1
    assert second.stderr.startswith("duoserve: another ./run up is starting this service")


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stack.url.rsplit(":", 1)[1])))
        taken.listen()
        up = stack.run("up")
    assert up.returncode == 1
    assert "ROUTER_PORT" in up.stderr and up.stderr.count("\n") == 1
    assert stack.processes() == []


def test_what_does_not_run_can_be_asked_and_stopped(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    status = stack.run("status")
    assert status.returncode == 1 and "down" in status.stdout
    down = stack.run("down")
    assert down.returncode == 0 and "was not running" in down.stdout
    logs = stack.run("logs")
    assert logs.returncode == 1 and "./run up" in logs.stderr


def test_models_that_do_not_fit_are_refused_before_anything_is_installed(tmp_path: Path) -> None:
    """A GPU of 24 GB, as its driver's tool would tell, and the models of one with 96 GB."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564, 410'\n")
    smi.chmod(0o755)
    stack = Stack(tmp_path / "home", PROFILE="blackwell-96gb")
    stack.path = smi.parent
    up = stack.run("up")
    assert up.returncode == 1 and up.stderr.count("\n") == 1
    assert "23.6 GiB that are free" in up.stderr and "the models need" in up.stderr
    assert "./run plan --profile blackwell-96gb" in up.stderr
    assert stack.processes() == []
    shown = stack.run("plan")
    assert shown.returncode == 1 and "NVIDIA GeForce RTX 4090 (24.0 GiB)" in shown.stdout
