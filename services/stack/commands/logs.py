"""`./run logs`: shows what the services logged."""

import subprocess
import sys

from services.stack.failure import Failure
from services.stack.settings import load


def logs(service: str | None, follow: bool) -> int:
    """Print the end of one log or of all, and with `follow` every new line; returns the exit status."""
    settings = load()
    known = [*settings.services, "supervisor"]
    if service and service not in known:
        raise Failure(f"there is no service {service}; choose one of {', '.join(known)}.")
    names = [service] if service else known
    paths = [str(path) for name in names if (path := settings.logs / f"{name}.log").exists()]
    if not paths:
        raise Failure(f"no logs in {settings.logs} yet; ./run up starts the service.")
    try:
        return subprocess.run(["tail", "-n", "100", *(["-F"] if follow else []), *paths]).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        sys.stdout.flush()
