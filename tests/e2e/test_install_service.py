"""A user's systemd starts the service, restarts it when it is killed, and stops it whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.stack import Stack

SYSTEMD = Path("/lib/systemd/systemd")
# In a mount and process namespace of its own, so that machine and user know nothing of this systemd.
SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
"$SYSTEMD" --user --log-target=console &
until systemctl --user is-system-running >/dev/null 2>&1; do sleep 0.2; done
./run install-service
"$PYTHON" -c "$CHECK"
./run install-service --uninstall
systemctl --user is-active duoserve || true
"""

# Inside that namespace: the service serves; killed, it comes back as another process and serves again.
CHECK = """
import os, signal, subprocess
from tests.support.waiting import wait_for

def main_process():
    shown = subprocess.run(
        ["systemctl", "--user", "show", "--property", "MainPID", "--value", "duoserve"],
        capture_output=True, text=True, check=True,
    )
    return int(shown.stdout)

def status():
    return subprocess.run(["./run", "status"], capture_output=True).returncode

wait_for(lambda: status() == 0, "everything is ready", 600)
first = main_process()
os.kill(first, signal.SIGKILL)
wait_for(lambda: main_process() not in (0, first), "systemd started it again")
wait_for(lambda: status() == 0, "everything is ready again", 600)
print("killed and back", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a namespace of its own")
@pytest.mark.skipif(not SYSTEMD.exists() or not shutil.which("systemctl"), reason="systemd is not installed")
def test_systemd_starts_restarts_and_stops_it(own_stack: Stack, tmp_path: Path) -> None:
    environment = own_stack.environment | {
        "SYSTEMD": str(SYSTEMD),
        "PYTHON": sys.executable,
        "CHECK": CHECK,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": "/run/user",
    }
    environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*unshare, "bash", "-c", SCRIPT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed and back" in done.stdout
    assert done.stdout.rstrip().endswith("inactive")
    assert own_stack.processes() == []
