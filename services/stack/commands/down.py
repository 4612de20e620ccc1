"""`./run down`: stops the services."""

from services.stack.console import console
from services.stack.settings import Settings, home
from services.stack.supervision.supervisor import Supervisor


def down() -> None:
    """Stop everything. It is no error when nothing was running."""
    # Without the settings: what runs can be stopped even if .env is damaged by now.
    stopped = Supervisor(Settings(home(), {})).stop()
    console.print("Duoserve is down." if stopped else "Duoserve was not running.")
