"""LiteLLM's environment and configuration: config/litellm.yaml, with an endpoint for every engine."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from fastapi import FastAPI

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
    return f"/to/{replica.alias}/{replica.number}"


@contextmanager
def configured(template: Path, replicas: Iterable[Replica]) -> Iterator[None]:
    """While entered, LiteLLM finds its configuration: `template` with an endpoint for each of `replicas`.

    LiteLLM only takes a list of endpoints; the one in `template` is the pattern. The file holds no secrets.
    """
    config = yaml.safe_load(template.read_text())
    general = config["general_settings"]
    (common,) = general["pass_through_endpoints"]
    general["pass_through_endpoints"] = [
        {**common, "path": endpoint(replica), "target": replica.url} for replica in replicas
    ]
    with tempfile.NamedTemporaryFile("w", prefix="duoserve-litellm-", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        os.environ["CONFIG_FILE_PATH"] = file.name
        yield
