"""`python -m ui`: serve the chat app on BIND_ADDRESS:UI_PORT."""

import argparse
import os
import sys
from pathlib import Path

from ui import settings

_ENVIRONMENT = {
    # What sessions leave behind can be used again: by default each thread takes its memory from an area of
    # its own, and a large block that was freed makes later ones split these areas (mallopt(3)).
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}


def main() -> int:
    """Replace this process by Streamlit's server; returns only when a setting is bad."""
    parser = argparse.ArgumentParser(prog="python -m ui", description="Serve the chat app.")
    parser.add_argument("--dev", action="store_true", help="reload the app when a file is saved")
    arguments = parser.parse_args()
    try:
        chosen = settings.load()
    except settings.InvalidAppSetting as problem:
        print(f"ui: {problem}", file=sys.stderr)
        return os.EX_CONFIG
    options = {
        "server.address": chosen.bind_address,
        "server.port": str(chosen.ui_port),
        "server.fileWatcherType": "auto" if arguments.dev else "none",
        "server.runOnSave": str(arguments.dev).lower(),
    }
    script = Path(__file__).with_name("server.py")
    # Streamlit reads ~/.streamlit, too, which is for other apps of this user.
    environment = os.environ | _ENVIRONMENT | {"HOME": str(script.parent)}
    os.execve(  # noqa: S606 - so that the supervisor's signals reach the server itself
        sys.executable,
        [sys.executable, "-m", "streamlit", "run", str(script)]
        + [f"--{name}={value}" for name, value in options.items()],
        environment,
    )


if __name__ == "__main__":
    sys.exit(main())
