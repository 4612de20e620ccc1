"""The body of an inference request, read within its limit and parsed."""

from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange


class ReadBody:
    """Sets the exchange's `body`; 413 if it is larger than `max_bytes`, 400 if it is not a JSON object."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        announced = exchange.request_headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        exchange.body = _parsed(await self._read(receive))
        await self._app(scope, receive, send)

    async def _read(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than {self._max_bytes / 1e6:g} MB (MAX_BODY_MB).",
            reason="too_large",
            code="request_too_large",
            headers={"connection": "close"},
        )


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, f"The body is not JSON: {error}.", reason="bad_request", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", reason="bad_request", code="invalid_json")
    return body
