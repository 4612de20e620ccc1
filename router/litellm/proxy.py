"""LiteLLM's proxy in this process: its environment, its configuration, and how it is asked."""

import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import orjson
import yaml
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import BadSettings
from router.litellm.config import MASTER_KEY, Config, resolved, verdict
from router.models import Replica

# LiteLLM fetches prices and news from the internet, and logs requests, unless told not to.
ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",  # otherwise it reads the checkout's .env, whose settings are the router's
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
# What the router does itself, for engines too.
_OURS = ("model_group_alias", "fallbacks", "context_window_fallbacks", "default_max_parallel_requests")
_DEFAULTS = {
    # Callbacks see no prompts unless config/litellm.yaml says so.
    "turn_off_message_logging": True,
    # Servers that imitate OpenAI's have /chat/completions; few have /responses.
    "use_chat_completions_url_for_anthropic_messages": True,
}
_COLLECT_SECONDS = 60.0
_CALLBACKS = ("callbacks", "success_callback", "failure_callback")


def load_app() -> FastAPI:
    """LiteLLM's app. It reads its environment when it is imported, which takes seconds."""
    os.environ.update(ENVIRONMENT)
    os.environ.pop("REDIS_URL", None)  # the router's; LiteLLM would use it too
    # Its warnings quote the engines' responses, and so prompts; the router logs what goes wrong.
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _no_collections():
        from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
        from litellm.proxy.proxy_server import app

    from router.litellm.auth import master_key_only

    loaded: FastAPI = app
    loaded.dependency_overrides[user_api_key_auth] = master_key_only
    return loaded


@contextmanager
def _no_collections() -> Iterator[None]:
    """Imports make a million objects and no garbage: looking for it takes a quarter of their time.

    Nor is it looked for among them later, when requests would wait for it.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


async def collect_garbage() -> None:
    """Free every minute what only cycles hold. What is there at the start is left out: it takes milliseconds.

    Of a streamed answer LiteLLM keeps all bytes, and cycles keep them when its client does not read it.
    Python's collector counts objects, so that megabytes in a list do not bring it to work.
    """
    gc.freeze()
    while True:
        await asyncio.sleep(_COLLECT_SECONDS)
        gc.collect()


class Proxy:
    """LiteLLM's app, and the key with which it is asked."""

    def __init__(self, app: FastAPI, master_key: str) -> None:
        self.app = app
        self._master_key = master_key

    @asynccontextmanager
    async def running(self, config: Config, replicas: Iterable[Replica]) -> AsyncIterator[None]:
        """Start LiteLLM with `config`, and stop it when the context is left."""
        async with AsyncExitStack() as stack:
            with configured(config, replicas):
                await stack.enter_async_context(self.app.router.lifespan_context(self.app))
            yield

    async def ask(
        self,
        app: ASGIApp,
        scope: Scope,
        path: str,
        body: Mapping[str, Any],
        send: Send,
        headers: Mapping[str, str] = MappingProxyType({}),
        state: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Send `body` to `path` of LiteLLM's `app` or a part of it, and the response to `send`.

        `scope` is that of the client's request; none of its headers are passed on, only `headers`. `state` is
        what LiteLLM reads of the request's state.
        """
        content = orjson.dumps(body)
        rewritten = {
            # From this version on, Starlette streams responses without a second task to watch the client.
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "state": dict(state),
            "headers": [
                (b"host", b"engine"),
                (b"authorization", f"Bearer {self._master_key}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()),
            ],
        }
        await app({**scope, **rewritten}, _receiver(content), send)


def _receiver(body: bytes) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        # LiteLLM learns that the client left by being cancelled.
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def endpoint(replica: Replica) -> str:
    """The path at which LiteLLM passes requests through to an engine."""
    return f"/to/{quote(replica.alias, safe='')}/{replica.number}"


def has_callbacks(config: Config) -> bool:
    """Whether somebody wants to hear of every answer."""
    return any(config.settings("litellm_settings").get(key) for key in _CALLBACKS)


def check_with_litellm(config: Config) -> None:
    """Check what only LiteLLM knows; it must have been loaded.

    Raises:
        BadSettings: it knows no such provider or callback.
    """
    import litellm
    from litellm.proxy.types_utils.utils import get_instance_fn

    for entry in config.remote:
        if entry.provider not in litellm.provider_list:
            raise BadSettings(
                f"{config.path}: model_list: {entry.name}: LiteLLM has no provider {entry.provider}; see "
                "https://docs.litellm.ai/docs/providers"
            )
    # Where LiteLLM looks for a callback that is a file beside its configuration.
    sys.path.append(str(config.path.parent))
    known = {str(name) for name in litellm._known_custom_logger_compatible_callbacks}
    for key in _CALLBACKS:
        for name in _listed(config.settings("litellm_settings").get(key)):
            try:
                if "." in str(name):
                    get_instance_fn(str(name))
                elif name not in known:
                    raise ImportError("no such callback")
            except Exception as error:
                why = " ".join(str(error).split()) or type(error).__name__
                raise BadSettings(
                    f"{config.path}: litellm_settings.{key}: {name} cannot be used: {why}"
                ) from None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _honoured(config: Config, section: str) -> dict[str, Any]:
    given = config.settings(section)
    found = {key: verdict(section, key) for key in given}
    return {key: value for key, value in given.items() if (fate := found[key]) and fate.fate == "honoured"}


@contextmanager
def configured(config: Config, replicas: Iterable[Replica]) -> Iterator[None]:
    """While entered, LiteLLM finds a configuration with the remote models, and an endpoint for each of
    `replicas`.

    LiteLLM forwards an engine's bytes without parsing them, which costs a tenth of its chat path. The file
    holds no more secrets than `config` does, only its owner can read it, and LiteLLM reads it once.
    """
    for name, value in config.settings("environment_variables").items():
        os.environ[name] = resolved(value, f"environment_variables.{name}", config.path)
    general = {
        "master_key": MASTER_KEY,
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
                "headers": {"content-type": "application/json"},
            }
            for replica in replicas
        ],
    }
    content: dict[str, Any] = {"general_settings": general}
    if config.remote or has_callbacks(config):
        settings = _DEFAULTS | _honoured(config, "litellm_settings")
        for key in _CALLBACKS:
            if key in settings:
                settings[key] = _listed(settings[key])
        if has_callbacks(config) and settings["turn_off_message_logging"]:
            settings["callbacks"] = ["router.litellm.redact.redact", *settings.get("callbacks", [])]
        content["litellm_settings"] = settings
    if config.remote:
        content["model_list"] = [
            {
                "model_name": entry.name,
                "litellm_params": dict(entry.parameters),
                "model_info": dict(entry.info),
            }
            for entry in config.remote
        ]
        settings = _honoured(config, "router_settings")
        content["router_settings"] = {key: value for key, value in settings.items() if key not in _OURS}
    with tempfile.NamedTemporaryFile("w", prefix="duoserve-litellm-", suffix=".yaml") as file:
        yaml.safe_dump(content, file)
        file.flush()
        os.environ["CONFIG_FILE_PATH"] = file.name
        yield
