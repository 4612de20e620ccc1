"""LiteLLM's pass-through endpoints.

They forward the engine's bytes without parsing them, which costs a tenth of LiteLLM's chat path. They do not
notice a client that leaves before the engine's headers arrive, but cancelling the task that runs them closes
the connection to the engine in every phase.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from router.litellm.proxy import configured, endpoint
from router.models import Model, Replica


class PassThrough:
    """Runs `litellm` in this process, and sends requests to its endpoints."""

    def __init__(self, litellm: FastAPI, models: Mapping[str, Model], master_key: str) -> None:
        self._litellm = litellm
        self._replicas = [replica for model in models.values() for replica in model.replicas]
        self._master_key = master_key

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start LiteLLM, and stop it when the context is left."""
        with configured(self._replicas):
            async with self._litellm.router.lifespan_context(self._litellm):
                self._endpoints = self._app_of_endpoints()
                await self._warm_up()
                yield

    def _app_of_endpoints(self) -> FastAPI:
        # A separate app: finding one of LiteLLM's 700 routes and passing its fifteen middlewares, all useless
        # here, costs a millisecond of CPU per request.
        app = FastAPI(openapi_url=None)
        app.exception_handlers = self._litellm.exception_handlers
        app.router.routes[:] = [
            route for route in self._litellm.routes if getattr(route, "path", "").startswith("/to/")
        ]
        return app

    async def _warm_up(self) -> None:
        """The first request costs two seconds of imports; whether it succeeds does not matter."""

        async def ignore(_: Message) -> None:
            pass

        scope = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http", "root_path": ""}
        with contextlib.suppress(Exception):
            await self(scope, self._replicas[0], "/health", b"{}", ignore)

    async def __call__(
        self, scope: Scope, replica: Replica, path: str, body: bytes, send: Send, priority: int = 0
    ) -> None:
        """Send `body` to `path` of an engine, and its response to `send`.

        `scope` is that of the client's request; none of its headers are passed on. `priority` is vLLM's.
        """
        await self._endpoints(
            {**scope, **self._rewritten(endpoint(replica) + path, body, priority)}, _receiver(body), send
        )

    def _rewritten(self, path: str, body: bytes, priority: int) -> dict[str, Any]:
        return {
            # From this version on, Starlette streams responses without a second task to watch the client.
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "state": {},
            "headers": [
                (b"host", b"engine"),
                (b"authorization", f"Bearer {self._master_key}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                # LiteLLM passes this on without its `x-pass-`.
                (b"x-pass-x-vllm-priority", str(priority).encode()),
            ],
        }


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
