"""Who may ask: one key, or several with names, compared in constant time."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange, header
from router.routes import OPEN
from router.settings import BadSettings, NamedKey

Network = IPv4Network | IPv6Network
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class KeyRing:
    """The keys that are valid now, by name: a change of the keys' file counts within two seconds."""

    def __init__(self, read: Callable[[], dict[str, NamedKey]], file: Path | None) -> None:
        """`read` gives all keys, anew whenever `file` changes.

        Raises:
            BadSettings: the file cannot be read, or an entry is not usable.
        """
        self._read = read
        self._file = file
        self._read_version = self._last_version = self._version()
        self.keys: Mapping[str, NamedKey] = read()

    async def watch(self) -> None:
        """Look at the file until cancelled. One that is unusable changes nothing, and the log says why."""
        while self._file:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read the keys again if their file has changed, and not since the last look, half written."""
        version, last = self._version(), self._last_version
        self._last_version = version
        if version != last or version == self._read_version:
            return
        self._read_version = version
        try:
            self.keys = self._read()
        except BadSettings as error:
            _log.error("the keys stay as they are: %s", error)
        else:
            _log.info("the keys were read again: %s", ", ".join(self.keys))

    def _version(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat() if self._file else None
        except OSError:
            return None
        return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)


class Keys:
    """401 unless the request carries one of the keys, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

    def __init__(self, app: ASGIApp, ring: KeyRing, metrics_open_to: Sequence[Network]) -> None:
        """/metrics needs no key from the networks in `metrics_open_to`."""
        self._app = app
        self._ring = ring
        self._metrics_open_to = metrics_open_to

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
        for name, known in self._ring.keys.items():
            # Digests have one length, so the comparison says nothing about the length of a key either.
            if hmac.compare_digest(given, _digest(known.key.get_secret_value())):
                found = name
        return found


def _given(scope: Scope) -> str:
    scheme, _, token = header(scope, b"authorization").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return header(scope, b"x-api-key").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
