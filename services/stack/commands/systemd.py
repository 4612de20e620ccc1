"""`./run install-service`: has systemd start the service, without containers."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.settings import home

NAME = "duoserve.service"
_STOP_SECONDS = 60  # running requests finish (SHUTDOWN_GRACE), then the engines stop
BOOTED = Path("/run/systemd/system")  # exists where systemd is the init system, see sd_booted(3)


def install_service(system: bool, uninstall: bool) -> None:
    """Install or uninstall the unit.

    Raises:
        Failure: systemd does not run here, or refuses, or root is needed.
    """
    if uninstall:
        remove(system)
    else:
        install(home(), system)


def unit(home: Path, system: bool) -> str:
    """The unit file for the stack at `home`. A `system` unit runs as the owner of the checkout."""
    user = pwd.getpwuid(ROOT.stat().st_uid).pw_name
    # The services find the same programs as the user who installs the unit.
    environment = [f"DUOSERVE_HOME={home}", f"PATH={os.environ['PATH']}"]
    return "\n".join(
        [
            "# Written by ./run install-service, which overwrites it.",
            "[Unit]",
            "Description=Duoserve: coder and general behind one OpenAI-compatible endpoint",
            "Wants=network-online.target",
            "After=network-online.target",
            # After five failed starts, a sixth will not succeed either.
            "StartLimitIntervalSec=15min",
            "StartLimitBurst=5",
            "",
            "[Service]",
            "Type=exec",
            *([f"User={user}"] if system else []),
            f"WorkingDirectory={_literal(ROOT)}",
            *(f"Environment={_quoted(variable)}" for variable in environment),
            f"ExecStart={_quoted(ROOT / 'run').replace('$', '$$')} up",
            "Restart=on-failure",
            "RestartSec=10",
            # As with Ctrl-C, `up` stops the services itself; what is left after the timeout is killed.
            "KillMode=mixed",
            f"TimeoutStopSec={_STOP_SECONDS}",
            "NoNewPrivileges=yes",
            "",
            "[Install]",
            f"WantedBy={'multi-user' if system else 'default'}.target",
            "",
        ]
    )


def install(home: Path, system: bool) -> None:
    """Write the unit, start it, and enable it for every boot, or for every login without `system`."""
    path = _path(system)
    _require(system)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit(home, system))
    _systemctl(system, "daemon-reload")
    _systemctl(system, "enable", "--now", NAME)
    who = "" if system else " --user"
    print(
        f"Installed {path} and started it.\n"
        f"  systemctl{who} status duoserve    journalctl{who} -u duoserve -f"
    )
    if not system:
        print("It starts when you log in. To start it at boot: loginctl enable-linger")


def remove(system: bool) -> None:
    """Stop the unit and remove it; settings, models and logs stay."""
    path = _path(system)
    if not path.exists():
        print(f"{path} is not installed.")
        return
    _require(system)
    _systemctl(system, "disable", "--now", NAME)
    path.unlink()
    _systemctl(system, "daemon-reload")
    print(f"Stopped the service and removed {path}.")


def _path(system: bool) -> Path:
    if system:
        return Path("/etc/systemd/system") / NAME
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configuration) / "systemd" / "user" / NAME


def _require(system: bool) -> None:
    if not BOOTED.is_dir() or not shutil.which("systemctl"):
        raise Failure("systemd does not run on this machine; start Duoserve with ./run up --detach instead.")
    if system and os.geteuid() != 0:
        raise Failure("a system service needs root: sudo ./run install-service --system, or omit --system.")


def _systemctl(system: bool, *arguments: str) -> None:
    command = ["systemctl", *([] if system else ["--user"]), *arguments]
    if subprocess.run(command).returncode != 0:
        raise Failure(f"{' '.join(command)} failed, see above.")


def _literal(value: object) -> str:
    return str(value).replace("%", "%%")  # systemd.unit(5), specifiers


def _quoted(value: object) -> str:
    text = _literal(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
