"""Who may ask."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import quote

from starlette.datastructures import Headers

from router.errors import ApiError
from router.exchange import Exchange
from router.keys import KeyRing, digest
from router.paths import METRICS, OPEN

# The chat app asks with the service's key, and names the personal key of whoever uses it by its SHA-256.
FOR_KEY = "x-duoserve-for-key"


def check_key(
    exchange: Exchange, *, ring: KeyRing, metrics_open_to: Sequence[IPv4Network | IPv6Network]
) -> None:
    """401 unless the request carries a valid key, as `Authorization: Bearer KEY` or `x-api-key: KEY`.

    Sets `key_name`: with the service's key, that of the valid key which `FOR_KEY` names, if it names one.
    /metrics needs no key from the networks in `metrics_open_to`.
    """
    if exchange.path in OPEN:
        return
    if exchange.path == METRICS and metrics_open_to and exchange.address:
        address = ip_address(exchange.address)
        if any(address in network for network in metrics_open_to):
            return
    key = _key(exchange.request_headers)
    param = None
    name = ring.name_of(digest(key))
    if name is None:
        problem = "is not valid" if key else "is missing"
        raise _refused(
            f"The API key {problem}. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'; "
            "the key is LITELLM_MASTER_KEY in the service's .env.",
            "bad_key",
        )
    if name == "master" and (meant := exchange.request_headers.get(FOR_KEY)):
        name, param = ring.name_of(_unhex(meant)), FOR_KEY
        if name is None:
            raise _refused(f"{FOR_KEY} names no valid key; it may be revoked or replaced.", "bad_key", param)
    exchange.key_name = name
    exchange.headers["x-duoserve-key"] = quote(name)
    if ring.keys[name].expired:
        raise _refused(
            f"The API key '{name}' expired after {ring.keys[name].expires}. Ask whoever runs the service for "
            "a new one (./run keys rotate).",
            "expired_key",
            param,
        )


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _refused(message: str, reason: str, param: str | None = None) -> ApiError:
    return ApiError(
        401,
        message,
        reason=reason,
        kind="authentication_error",
        param=param,
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )


def _key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return (headers.get("x-api-key") or headers.get("api-key", "")).strip()
