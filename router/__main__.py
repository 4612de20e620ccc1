"""Entry point: `python -m router`."""

import logging
import math
import os
import signal
import sys

import uvicorn
from starlette.types import ASGIApp

from router.app import build
from router.settings import ROOT, BadSettings, Settings, read_settings

BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
# LiteLLM asks the internet for prices and news, and logs requests, unless told not to.
_LITELLM_ENVIRONMENT = {
    "CONFIG_FILE_PATH": str(ROOT / "config" / "litellm.yaml"),
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY_DISABLED": "true",
    "LITELLM_LOG": "ERROR",
    "NO_DOCS": "true",
    "NO_REDOC": "true",
    "NO_OPENAPI": "true",
    "DISABLE_ADMIN_UI": "true",
}


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings()
        app = _app(settings)
    except BadSettings as error:
        print(f"router: {error}", file=sys.stderr)
        return BAD_SETTINGS
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=str(settings.bind_address),
            port=settings.router_port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace),
        )
    )
    # uvicorn raises the signal again when it has shut down; that must not turn a clean stop into a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def _app(settings: Settings) -> ASGIApp:
    engines = settings.engines()
    settings.keys()
    os.environ.update(_LITELLM_ENVIRONMENT)
    for engine in engines.values():
        os.environ[f"{engine.alias.upper()}_URL"] = engine.url
    os.environ.pop("REDIS_URL", None)  # ours; LiteLLM would use it for itself
    # Reads its environment when it is imported, and takes seconds to.
    from litellm.proxy.proxy_server import app as litellm

    # Its warnings quote the engine's answers, and so prompts; what goes wrong is in our own log.
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return build(settings, litellm)


if __name__ == "__main__":
    sys.exit(main())
