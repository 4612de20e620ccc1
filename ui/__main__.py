"""`python -m ui`: serve the chat app on BIND_ADDRESS:UI_PORT."""

import argparse
import os
import sys
from pathlib import Path

from ui import settings


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
    os.execve(  # noqa: S606 - so that the supervisor's signals reach the server itself
        sys.executable,
        [sys.executable, "-m", "streamlit", "run", str(script)]
        + [f"--{name}={value}" for name, value in options.items()],
        # Streamlit reads ~/.streamlit, too, which is for other apps of this user.
        os.environ | {"HOME": str(script.parent)},
    )


if __name__ == "__main__":
    sys.exit(main())
