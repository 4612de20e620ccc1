"""Errors as the client's own library expects them."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Send

ANTHROPIC_PATHS = ("/v1/messages", "/v1/messages/count_tokens")

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

# How much of a refused request's body is thrown away, and for how long, before the connection is closed.
_LINGER_BYTES = 64_000_000
_LINGER_SECONDS = 2.0


class ApiError(Exception):
    """What a client is told when its request is not served.

    `status`, `message`, `type`, `param` and `code` are those of OpenAI's error object
    (https://platform.openai.com/docs/guides/error-codes). `reason` is one word for logs and metrics.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def error_object(error: ApiError, path: str) -> dict[str, Any]:
    """The JSON body for `error`: OpenAI's shape, or Anthropic's on the paths of its Messages API."""
    if path in ANTHROPIC_PATHS:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_event(error: ApiError, path: str) -> bytes:
    """The last server-sent events of a stream that fails after its headers have gone out.

    Chat and text completions end with `[DONE]`, as vLLM ends them; the other APIs name their error event.
    """
    if path in ANTHROPIC_PATHS:
        return b"event: error\ndata: " + json.dumps(error_object(error, path)).encode() + b"\n\n"
    if path == "/v1/responses":
        # https://platform.openai.com/docs/api-reference/responses-streaming/error
        event = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
    return b"data: " + json.dumps(error_object(error, path)).encode() + b"\n\ndata: [DONE]\n\n"


async def send_error(error: ApiError, path: str, receive: Receive, send: Send) -> None:
    """Answer with `error` as a whole response.

    A client that is still sending its body gets some time to notice: were the connection closed on unread
    data, TCP would reset it and the answer be lost on its way (RFC 9112, section 9.6).
    """
    body = json.dumps(error_object(error, path)).encode()
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
