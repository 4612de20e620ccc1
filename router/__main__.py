"""Entry point: `python -m router`."""

import logging
import math
import os
import signal
import sys
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from router.lifeline import Shutdown
from router.litellm_config import written
from router.settings import ROOT, BadSettings, Settings, read_settings

_LAST_SECONDS = 3
BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
# LiteLLM asks the internet for prices and news, and logs requests, unless told not to.
_LITELLM_ENVIRONMENT = {
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY_DISABLED": "true",
    "LITELLM_LOG": "ERROR",
    "GRACEFUL_SHUTDOWN_TIMEOUT": "1",  # the router has waited for its requests itself
    "NO_DOCS": "true",
    "NO_REDOC": "true",
    "NO_OPENAPI": "true",
    "DISABLE_ADMIN_UI": "true",
}


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    shutdown = Shutdown()
    try:
        settings = read_settings()
        replicas = [replica for engine in settings.engines().values() for replica in engine.replicas]
        with written(ROOT / "config" / "litellm.yaml", replicas) as config:
            os.environ["CONFIG_FILE_PATH"] = str(config)
            return _serve(settings, _app(settings, shutdown), shutdown)
    except BadSettings as error:
        print(f"router: {error}", file=sys.stderr)
        return BAD_SETTINGS


def _serve(settings: Settings, app: ASGIApp, shutdown: Shutdown) -> int:
    config = uvicorn.Config(
        app,
        host=str(settings.bind_address),
        port=settings.router_port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        # Later than the grace time, at the end of which the router ends its requests itself.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace) + _LAST_SECONDS,
    )
    server = _Server(config, shutdown, settings.shutdown_grace)
    # uvicorn raises the signal again when it has shut down; that must not turn a clean stop into a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Lets the router know that it is being stopped."""

    def __init__(self, config: uvicorn.Config, shutdown: Shutdown, grace: float) -> None:
        super().__init__(config)
        self._shutdown = shutdown
        self._grace = grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._shutdown.begin(self._grace)


def _app(settings: Settings, shutdown: Shutdown) -> ASGIApp:
    settings.keys()
    os.environ.update(_LITELLM_ENVIRONMENT)
    os.environ.pop("REDIS_URL", None)  # ours; LiteLLM would use it for itself
    # LiteLLM reads its environment when it is imported. Both take seconds, and bad settings are said before.
    from litellm.proxy.proxy_server import app as litellm

    from router.app import build

    # Its warnings quote the engine's answers, and so prompts; what goes wrong is in our own log.
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return build(settings, litellm, shutdown)


if __name__ == "__main__":
    sys.exit(main())
