"""`./run down`: stops the services."""

from services.stack.console import console
from services.stack.settings import load
from services.stack.supervision.supervisor import Supervisor


def down() -> None:
    """Stop everything. It is no error when nothing was running."""
    stopped = Supervisor(load()).stop()
    console.print("Duoserve is down." if stopped else "Duoserve was not running.")
