"""Entry point: `python -m router`; `--check` only checks the settings and the files that they name."""

import asyncio
import logging
import math
import os
import signal
import sys
from types import FrameType

import uvicorn

from router.app import build, check
from router.errors import BadSettings
from router.settings import read_settings

_LAST_SECONDS = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT, or only check the settings; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopping = asyncio.Event()
    try:
        settings = read_settings()
        if sys.argv[1:] == ["--check"]:
            check(settings)
            return 0
        app = build(settings, stopping)
    except BadSettings as error:
        print(f"router: {error}", file=sys.stderr)
        return os.EX_CONFIG
    config = uvicorn.Config(
        app,
        host=str(settings.bind_address),
        port=settings.router_port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        # Later than the end of the grace period, when the router itself ends its requests.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace) + _LAST_SECONDS,
    )
    server = _Server(config, stopping, settings.shutdown_grace)
    # uvicorn raises the signal again after it has shut down; that must not turn a clean stop into a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Sets `stopping` when the `grace` period (in seconds) after a signal is over."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event, grace: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._grace = grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_later(self._grace, self._stopping.set)


if __name__ == "__main__":
    sys.exit(main())
