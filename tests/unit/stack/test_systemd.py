"""The systemd unit, as systemd itself reads it; tests/e2e/test_install_service.py runs it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from services.stack.commands import systemd
from services.stack.environments import ROOT
from services.stack.failure import Failure


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("system", [True, False])
def test_systemd_accepts_the_unit(tmp_path: Path, system: bool) -> None:
    home = tmp_path / 'a "strange" 100% $HOME'
    path = tmp_path / systemd.NAME
    path.write_text(systemd.unit(home, system))
    answer = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    said = [line for line in answer.stderr.splitlines() if systemd.NAME in line]
    assert answer.returncode == 0 and not said, answer.stderr


def test_a_fault_in_a_unit_would_be_found(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / systemd.NAME
    path.write_text(systemd.unit(tmp_path, True).replace("KillMode=mixed", "KillMode=sometimes"))
    answer = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert "kill mode" in answer.stderr and systemd.NAME in answer.stderr


def test_a_system_unit_runs_as_the_owner_of_the_checkout_and_a_users_own_as_that_user(tmp_path: Path) -> None:
    assert f"User={ROOT.owner()}\n" in systemd.unit(tmp_path, True)
    own = systemd.unit(tmp_path, False)
    assert "User=" not in own and "WantedBy=default.target" in own
    assert f'ExecStart="{ROOT}/run" up\n' in own


def test_without_systemd_it_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "BOOTED", tmp_path / "absent")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(Failure, match=r"systemd does not run .* \./run up --detach"):
        systemd.install(tmp_path, system=False)
    assert list(tmp_path.iterdir()) == []


def test_installing_and_removing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a systemctl that only says what it was asked."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text('#!/bin/sh\necho "asked: $*"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    path = tmp_path / "config" / "systemd" / "user" / systemd.NAME
    systemd.install(tmp_path, system=False)
    assert path.read_text() == systemd.unit(tmp_path, False)
    systemd.remove(system=False)
    assert not path.exists()
    asked = [line for line in capfd.readouterr().out.splitlines() if line.startswith("asked: ")]
    assert asked == [
        "asked: --user daemon-reload",
        f"asked: --user enable --now {systemd.NAME}",
        f"asked: --user disable --now {systemd.NAME}",
        "asked: --user daemon-reload",
    ]
    systemd.remove(system=False)  # a second time is no fault
