"""The body of an inference request, read within its limit and parsed."""

import asyncio
import zlib
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from router.context import far_too_long, most_bytes
from router.errors import ApiError
from router.exchange import Exchange
from router.paths import POOLING

# What zlib calls the formats that HTTP calls gzip and deflate, whichever a body has.
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_ENCODINGS = ("gzip", "x-gzip", "deflate")
# The serialiser takes 254 levels; on its way to the engine a request gets a few more around it.
_LEVELS_AROUND = 14
# Texts that are indexed together are many, and short. OpenAI takes 300,000 tokens of them in a request.
_BATCH_BYTES = 2_000_000
_MOST_LEVELS = 240


class ReadBody:
    """Sets the exchange's `body`: 413 if it is larger than `max_bytes`, also once it is decompressed; 415 if
    it is compressed otherwise than by gzip or deflate; 400 if it is not a JSON object, nested too deeply, or
    far beyond `window`, the longest context of a model in tokens.

    What is far beyond is refused before any work on it, which would hold up everybody else: parsing 15 MB,
    or checking 300,000 messages, takes a second.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, window: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._window = window
        self._most_bytes = most_bytes(window)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        announced = exchange.request_headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        if announced.isdigit():
            self._check_size(int(announced), exchange.path)
        encoding = exchange.request_headers.get("content-encoding", "identity").strip().lower()
        if encoding not in (*_ENCODINGS, "identity", ""):
            raise _unknown_encoding(encoding)
        raw = await self._read(receive)
        if encoding in _ENCODINGS:
            raw = await asyncio.to_thread(self._decompressed, raw)
        self._check_size(len(raw), exchange.path)
        exchange.body, exchange.size = _parsed(raw), len(raw)
        for name in () if exchange.path in POOLING else ("messages", "input", "prompt"):
            # A message has at least one token, and so has each entry of the others.
            if isinstance(entries := exchange.body.get(name), list) and len(entries) > self._window:
                raise far_too_long(self._window, f"{len(entries)} entries", name)
        await self._app(scope, receive, send)

    def _check_size(self, size: int, path: str) -> None:
        """The size for which the body is refused before any work on it."""
        if path in POOLING:
            if size > _BATCH_BYTES:
                raise _batch_too_large()
        elif size > self._most_bytes:
            raise far_too_long(self._window, f"{size / 1e6:.1f} MB")

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

    def _decompressed(self, raw: bytes) -> bytes:
        decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            body = decompressor.decompress(raw, self._max_bytes + 1)
        except zlib.error as error:
            raise _not_json(f"cannot be decompressed: {error}") from None
        if len(body) > self._max_bytes:
            raise self._too_large()
        if not decompressor.eof:
            raise _not_json("cannot be decompressed: its end is missing")
        return body

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than {self._max_bytes / 1e6:g} MB (MAX_BODY_MB).",
            reason="too_large",
            code="request_too_large",
            headers={"connection": "close"},
        )


def _batch_too_large() -> ApiError:
    return ApiError(
        413,
        f"The texts are more than {_BATCH_BYTES / 1e6:g} MB. Send fewer in one request.",
        reason="too_large",
        code="request_too_large",
        headers={"connection": "close"},
    )


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error):
            raise _too_deep() from None
        raise _not_json(f"is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise _not_json("must be a JSON object")
    if raw.count(b"[") + raw.count(b"{") > _MOST_LEVELS:
        _check_depth(body)
    return body


def _check_depth(body: dict[str, Any]) -> None:
    nested: Any = body
    for _ in range(_LEVELS_AROUND):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except orjson.JSONEncodeError:
        raise _too_deep() from None


def _too_deep() -> ApiError:
    return _not_json(f"is nested too deeply: at most {_MOST_LEVELS} levels of lists and objects are allowed")


def _not_json(problem: str) -> ApiError:
    return ApiError(400, f"The body {problem}.", reason="bad_request", code="invalid_json")


def _unknown_encoding(encoding: str) -> ApiError:
    return ApiError(
        415,
        f"The body's encoding '{encoding[:40]}' is not supported. Use gzip, or do not compress it.",
        reason="bad_request",
        code="unsupported_encoding",
        headers={"accept-encoding": "gzip, deflate", "connection": "close"},
    )
