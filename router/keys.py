"""Who may ask: one key, or several with names, compared in constant time."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange, header
from router.routes import OPEN

Network = IPv4Network | IPv6Network


class Keys:
    """401 unless the request carries one of the keys, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str], metrics_open_to: Sequence[Network]) -> None:
        """`keys` maps the name of each key, which logs and limits use, to the key; /metrics needs none from
        the networks in `metrics_open_to`.
        """
        self._app = app
        self._metrics_open_to = metrics_open_to
        # Digests have one length, so the comparison says nothing about the length of a key either.
        self._digests = [(name, _digest(key)) for name, key in keys.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the exchange's `key_name`. Raises ApiError 401."""
        if scope["type"] == "http" and not self._is_open(scope):
            given = _given(scope)
            name = self.name_of(given)
            if name is None:
                said = "is not valid" if given else "is missing"
                raise ApiError(
                    401,
                    f"The API key {said}. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'; "
                    "the key is LITELLM_MASTER_KEY in the service's .env.",
                    reason="bad_key",
                    kind="authentication_error",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
            Exchange.of(scope).key_name = name
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["path"] == "/metrics" and self._metrics_open_to and scope.get("client"):
            address = ip_address(scope["client"][0])
            return any(address in network for network in self._metrics_open_to)
        return scope["path"] in OPEN

    def name_of(self, key: str) -> str | None:
        """The name of `key`, or None. Takes the same time whichever key matches."""
        given, found = _digest(key), None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = name
        return found


def _given(scope: Scope) -> str:
    scheme, _, token = header(scope, b"authorization").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return header(scope, b"x-api-key").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
