"""Errors as the client's own library expects them: in the shape of OpenAI's or Anthropic's API."""

import asyncio
import contextlib
import json
import logging
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import paths
from router.errors import ApiError
from router.exchange import Exchange

# https://docs.claude.com/en/api/errors
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# How much of a refused request's body is read and discarded, and for how long, before the connection closes.
_LINGER_BYTES = 64_000_000
_LINGER_SECONDS = 2.0
# How long a client that does not read its stream may delay the error event at its end.
_LAST_EVENT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class AnswerErrors:
    """Answers whatever is raised inside, and adds the exchange's headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        started, read = False, False

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read = not message.get("more_body", False)
            return message

        async def rest() -> Message:
            return {"type": "http.request"} if read else await receiving()

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = {"x-request-id": exchange.request_id, **exchange.headers}
                if exchange.path in paths.ANTHROPIC:
                    added["request-id"] = exchange.request_id
                extra = [(name.encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            try:
                await send(message)
            except (OSError, RuntimeError):  # the transport is closed; uvloop raises the latter
                raise ClientDisconnect from None

        try:
            await self._app(scope, receiving, sending)
            return
        except ClientDisconnect:
            exchange.aborted = True
            return
        except ApiError as raised:
            error = raised
        except Exception:
            _log.exception("request %s failed", exchange.request_id)
            error = ApiError(
                500,
                f"Duoserve failed on this request. The cause is in its log, under {exchange.request_id}.",
                reason="internal",
                kind="server_error",
                code="internal_error",
            )
        exchange.reason = error.reason
        try:
            if not started:
                await _send_error(error, exchange.path, rest, sending)
            elif exchange.stream:
                event = {"type": "http.response.body", "body": _error_event(error, exchange)}
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(sending(event), _LAST_EVENT_SECONDS)
        except ClientDisconnect:
            exchange.aborted = True


def _error_object(error: ApiError, path: str) -> dict[str, Any]:
    if path in paths.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def _error_event(error: ApiError, exchange: Exchange) -> bytes:
    """The last server-sent events of a stream that fails after its headers have been sent.

    Chat and text completions end with `[DONE]`, as vLLM ends them; the other APIs name their error event.
    """
    path = exchange.path
    if path in paths.ANTHROPIC:
        return b"event: error\ndata: " + json.dumps(_error_object(error, path)).encode() + b"\n\n"
    if path == paths.RESPONSES:
        # https://platform.openai.com/docs/api-reference/responses-streaming/error
        last = exchange.sequence_number
        event = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": 0 if last is None else last + 1,
        }
        return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
    return b"data: " + json.dumps(_error_object(error, path)).encode() + b"\n\ndata: [DONE]\n\n"


async def _send_error(error: ApiError, path: str, receive: Receive, send: Send) -> None:
    """Send `error` as the whole response.

    A client that is still sending its body gets some time to notice: if the connection were closed on unread
    data, TCP would reset it and the response could be lost on its way (RFC 9112, section 9.6).
    """
    body = json.dumps(_error_object(error, path)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    start: Message = {
        "type": "http.response.start",
        "status": error.status,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    unread = _LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while unread > 0 and (message := await receive()).get("more_body", False):
                unread -= len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b""})
