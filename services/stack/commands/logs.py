"""`./run logs`: shows what the services logged."""

import subprocess
import sys

from services.stack.failure import Failure
from services.stack.settings import Settings, home


def logs(service: str | None, follow: bool) -> int:
    """Print the end of one log or of all, and with `follow` every new line; returns the exit status."""
    # Without the settings: there are logs to read even if .env is damaged by now.
    folder = Settings(home(), {}).logs
    paths = {path.stem: str(path) for path in sorted(folder.glob("*.log"))}
    if not paths:
        raise Failure(f"no logs in {folder} yet; ./run up starts the service.")
    if service and service not in paths:
        raise Failure(f"there is no log of {service}; choose one of {', '.join(paths)}.")
    chosen = [paths[service]] if service else list(paths.values())
    try:
        return subprocess.run(["tail", "-n", "100", *(["-F"] if follow else []), *chosen]).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        sys.stdout.flush()
