"""LiteLLM's pass-through endpoints, which lead to the engines.

They forward the engine's bytes without parsing them, which costs a tenth of LiteLLM's chat path. They do not
notice a client that leaves before the engine's headers arrive, but cancelling the task that runs them closes
the connection to the engine in every phase.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.types import Message, Scope, Send

from router.errors import ApiError, engine_failed
from router.exchange import Exchange
from router.litellm.proxy import Proxy, endpoint
from router.models import Replica
from router.paths import POOLING
from router.refusals import engine_broke_off, engine_refused


class PassThrough:
    """Sends requests to the engine that was chosen for them."""

    def __init__(self, proxy: Proxy, replicas: Sequence[Replica], silent: bool) -> None:
        """`silent`: LiteLLM's callbacks do not hear of these requests, because callbacks.py reports them."""
        self._proxy = proxy
        self._replicas = replicas
        self._silent = silent

    async def __aenter__(self) -> None:
        """Find the endpoints in LiteLLM, which must be running, and pay for the first request: two seconds of
        imports. Whether it succeeds does not matter.
        """
        # A separate app: finding one of LiteLLM's 700 routes and passing its fifteen middlewares, all useless
        # here, costs a millisecond of CPU per request.
        self._app = FastAPI(openapi_url=None)
        self._app.exception_handlers = self._proxy.app.exception_handlers
        self._app.router.routes[:] = [
            route for route in self._proxy.app.routes if getattr(route, "path", "").startswith("/to/")
        ]

        async def ignore(_: Message) -> None:
            pass

        scope = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http", "root_path": ""}
        if self._replicas:
            path = endpoint(self._replicas[0]) + "/health"
            with contextlib.suppress(Exception):
                await self._proxy.ask(self._app, scope, path, {}, ignore)

    async def __aexit__(self, *exc: object) -> None:
        """Nothing has to be stopped."""

    async def __call__(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Send the exchange's body to its engine, and the engine's response to `send`."""
        # LiteLLM parses, copies and records what it believes to be the body, and sends what its state holds.
        # It also parses a response that it does not believe to be a stream, and serves nobody else meanwhile.
        # The vectors of a batch are megabytes.
        streamed = exchange.stream or exchange.path in POOLING
        believed: dict[str, Any] = {"model": exchange.body.get("model"), "stream": streamed}
        if self._silent:
            believed["no-log"] = True
        state = {"litellm_pass_through_raw_body": orjson.dumps(exchange.body)}
        path = endpoint(exchange.chosen) + exchange.path
        # LiteLLM passes this on without its `x-pass-`.
        priority = {"x-pass-x-vllm-priority": str(int(exchange.priority))}
        await self._proxy.ask(self._app, scope, path, believed, send, priority, state)

    def failed(self, exchange: Exchange) -> ApiError:
        return engine_failed(exchange.alias)

    def refused(self, exchange: Exchange, status: int, body: bytes) -> ApiError:
        return engine_refused(status, body, exchange.alias, exchange.body)

    def broke_off(self, exchange: Exchange, events: bytes) -> ApiError:
        return engine_broke_off(events, exchange.alias, exchange.body)
