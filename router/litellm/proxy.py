"""LiteLLM's proxy: its environment, and the configuration that it is given."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import yaml
from fastapi import FastAPI

from router.litellm.config import MASTER_KEY
from router.models import Replica

# LiteLLM fetches prices and news from the internet, and logs requests, unless told not to.
_ENVIRONMENT = {
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY_DISABLED": "true",
    "LITELLM_LOG": "ERROR",
    "GRACEFUL_SHUTDOWN_TIMEOUT": "1",  # the router has already waited for its requests
    "NO_DOCS": "true",
    "NO_REDOC": "true",
    "NO_OPENAPI": "true",
    "DISABLE_ADMIN_UI": "true",
}


def load_app() -> FastAPI:
    """LiteLLM's app. It reads its environment when it is imported, which takes seconds."""
    os.environ.update(_ENVIRONMENT)
    os.environ.pop("REDIS_URL", None)  # the router's; LiteLLM would use it too
    # Its warnings quote the engines' responses, and so prompts; the router logs what goes wrong.
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from litellm.proxy.proxy_server import app

    loaded: FastAPI = app
    return loaded


def endpoint(replica: Replica) -> str:
    """The path at which LiteLLM passes requests through to an engine."""
    return f"/to/{quote(replica.alias, safe='')}/{replica.number}"


@contextmanager
def configured(replicas: Iterable[Replica]) -> Iterator[None]:
    """While entered, LiteLLM finds a configuration with an endpoint for each of `replicas`.

    LiteLLM forwards the engine's bytes without parsing them, which costs a tenth of its chat path. The file
    holds no secrets.
    """
    general = {
        "master_key": MASTER_KEY,
        "custom_auth": "router.litellm.auth.master_key_only",
        # The router's REQUEST_TIMEOUT ends a request; this one only has to be longer.
        "pass_through_request_timeout": 3600,
        # Only the router, which has checked key and alias, can reach these paths.
        "pass_through_endpoints": [
            {
                "path": endpoint(replica),
                "target": replica.url,
                "include_subpath": True,
                "methods": ["POST"],
                "auth": True,
                "forward_headers": False,
            }
            for replica in replicas
        ],
    }
    with tempfile.NamedTemporaryFile("w", prefix="duoserve-litellm-", suffix=".yaml") as file:
        yaml.safe_dump({"general_settings": general}, file)
        file.flush()
        os.environ["CONFIG_FILE_PATH"] = file.name
        yield
