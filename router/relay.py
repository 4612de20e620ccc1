"""Hands a request to LiteLLM, cancels it when the client goes away, and cleans what comes back.

LiteLLM's pass-through endpoints (config/litellm.yaml) forward the engine's bytes without parsing them, which
costs a tenth of its chat path. They do not notice a client that leaves before the engine's headers have come;
cancelling the task that runs LiteLLM closes its connection to the engine in every phase.
"""

import asyncio
import contextlib
import logging
import re
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.litellm_config import endpoint

# An error of the engine inside a stream, in OpenAI's and in Anthropic's shape. A text has no such line.
_ENGINE_ERROR = re.compile(rb'(?:^|\n)(?:data: \{"error":.*"code":\s*5\d\d|event: error)')
# Headers of the engine's answer that a client may see.
_PASSED_HEADERS = (b"content-type", b"content-length", b"cache-control")
_log = logging.getLogger(__name__)


class Relay:
    """Runs LiteLLM on the exchange's body, at the pass-through endpoint of the chosen engine."""

    def __init__(self, master_key: str) -> None:
        self._master_key = master_key

    def open(self, litellm: FastAPI) -> None:
        """Take LiteLLM's pass-through endpoints, which it has made when it has started.

        They run in an app of their own: finding one among LiteLLM's 700 routes, and passing its fifteen
        middlewares, of which none is wanted here, costs a millisecond of CPU for every request.
        """
        app = FastAPI(openapi_url=None)
        app.exception_handlers = litellm.exception_handlers
        app.router.routes[:] = [
            route for route in litellm.routes if getattr(route, "path", "").startswith("/to/")
        ]
        self._litellm = app

    async def warm_up(self) -> None:
        """Send LiteLLM one request, whatever comes of it: its first one costs two seconds of imports."""

        async def ignore(_: Message) -> None:
            pass

        body = b"{}"
        scope = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http", "root_path": ""}
        with contextlib.suppress(Exception):
            inner = {**scope, **_rewritten("/to/coder/1/health", body, self._master_key)}
            await self._litellm(inner, _receiver(body), ignore)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError with the engine's refusal, or 503 when the engine breaks off."""
        exchange = Exchange.of(scope)
        body = orjson.dumps(exchange.body)
        path = endpoint(exchange.chosen) + exchange.path
        inner = {**scope, **_rewritten(path, body, self._master_key)}
        answer = _Answer(exchange, send)
        try:
            await self._litellm(inner, _receiver(body), answer)
        except Exception as error:
            _log.warning("the answer of %s broke off: %s", exchange.alias, type(error).__name__)
            raise engine_failed(exchange.alias) from None
        if answer.refusal is not None:
            raise upstream_error(answer.refusal, answer.refusal_body, exchange.alias)
        if not answer.complete:
            raise engine_failed(exchange.alias)


def _rewritten(path: str, body: bytes, master_key: str) -> dict[str, Any]:
    """What the scope of a request to a pass-through endpoint says: nothing of the client's own headers."""
    return {
        # From this version on, a response is streamed without a second task that watches the client.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "state": {},
        "headers": [
            (b"host", b"engine"),
            (b"authorization", f"Bearer {master_key}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }


def _receiver(body: bytes) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        # The client's leaving reaches LiteLLM as a cancellation.
        await asyncio.Event().wait()
        raise AssertionError

    return receive


class _Answer:
    """Passes an answer on without the headers that tell of LiteLLM and the engine; keeps back a refusal."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self.refusal: int | None = None
        self.refusal_body = b""
        self.complete = False
        self._cancelled = False

    async def __call__(self, message: Message) -> None:
        if self._cancelled:
            return
        try:
            await self._pass_on(message)
        except asyncio.CancelledError:
            # LiteLLM closes its connection to the engine when it is cancelled while it reads from it, but not
            # while it writes to us, as it does while a slow client holds it up. So it gets to read once more.
            self._cancelled = True
            if task := asyncio.current_task():
                asyncio.get_running_loop().call_soon(task.cancel)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self.refusal = message["status"]
                return
            headers = [pair for pair in message["headers"] if pair[0].lower() in _PASSED_HEADERS]
            await self._send({**message, "headers": headers})
        elif self.refusal is not None:
            self.refusal_body += message.get("body", b"")
        else:
            part = message.get("body", b"")
            if b"error" in part and _ENGINE_ERROR.search(part):
                self._exchange.reason = "engine_failed"
            await self._send(message)
            self.complete = not message.get("more_body", False)


def engine_failed(alias: str) -> ApiError:
    """The engine died, or something between it and us broke."""
    return ApiError(
        503,
        f"The engine of '{alias}' failed to answer. Try again soon; GET /ready tells whether it serves.",
        reason="engine_failed",
        kind="service_unavailable",
        code="engine_failed",
        headers={"retry-after": "2"},
    )


def upstream_error(status: int, body: bytes, alias: str) -> ApiError:
    """The engine's refusal in our words where it is the engine's, and a plain one where it is LiteLLM's."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    error = content.get("error", content) if isinstance(content, dict) else None
    if status in (400, 404, 422) and isinstance(error, dict) and isinstance(error.get("message"), str):
        return ApiError(
            400 if status == 422 else status,
            error["message"],
            reason="engine_refused",
            param=error.get("param") if isinstance(error.get("param"), str) else None,
            code=error.get("code") if isinstance(error.get("code"), str) else None,
        )
    _log.warning("the engine of %s answered %d", alias, status)
    if status in (429, 503):
        return ApiError(
            503,
            f"The engine of '{alias}' is overloaded. Try again soon.",
            reason="engine_overloaded",
            kind="service_unavailable",
            code="engine_overloaded",
            headers={"retry-after": "2"},
        )
    return engine_failed(alias)
