"""The request's body: read within its limit, parsed, and free of what steers the proxy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange, header
from router.requests import check


class ClientGone(Exception):
    """The client left before its request was read or answered."""


@dataclass(frozen=True)
class Tolerated:
    """Parameters that clients send and nothing here uses, from config/parameters.yaml."""

    dropped: frozenset[str]
    unset: dict[str, Any]  # the value that stands for "not set", by name
    unable: frozenset[str]  # part of the API, but more than the engines of this profile can take

    @classmethod
    def read(cls, path: Path, profile: str) -> "Tolerated":
        """Raises ValueError: the file cannot be read or an entry is incomplete."""
        try:
            table = yaml.safe_load(path.read_text())
            return cls(
                frozenset(table["dropped"]),
                {name: e["value"] for name, e in table["unset"].items()},
                frozenset(table["unable"].get(profile, {})),
            )
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be used: {type(error).__name__} {error}") from None

    def without(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` without them."""
        return {
            name: value
            for name, value in body.items()
            if name not in self.dropped and (name not in self.unset or value != self.unset[name])
        }


class Body:
    """Reads, parses and checks the body of an inference request."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_n: int, max_stop: int, tolerated: Tolerated) -> None:
        self._app = app
        self._tolerated = tolerated
        self._max_bytes = max_bytes
        self._max_n = max_n
        self._max_stop = max_stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the exchange's body. Raises ApiError 400 or 413, ClientGone."""
        exchange = Exchange.of(scope)
        body = self._tolerated.without(parse(await self._read(scope, receive)))
        exchange.body = check(body, exchange.path, self._max_n, self._max_stop)
        if unable := sorted(self._tolerated.unable & exchange.body.keys()):
            for name in unable:
                del exchange.body[name]
            exchange.headers["x-duoserve-ignored"] = ", ".join(unable)
        exchange.stream = exchange.body.get("stream") is True
        await self._app(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
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


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ApiError 400."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400, f"The body is not JSON: {error}.", reason="bad_request", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", reason="bad_request", code="invalid_json")
    return body
