"""Which of a model's engines answers a request: the least busy of those that serve."""

import asyncio
import contextlib
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from router.engines import Replica
from router.errors import ApiError
from router.exchange import Exchange
from router.readiness import Readiness, not_ready

_CONNECT_SECONDS = 1.0


class Replicas:
    """How busy each engine is, as far as this router has made it so."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.running: Counter[Replica] = Counter()

    def best(self, among: Sequence[Replica], client: str) -> Replica:
        """The one with the fewest requests; among equals a client keeps to one, for its prefix cache."""
        return min(among, key=lambda replica: (self.running[replica], _rank(replica, client)))

    @asynccontextmanager
    async def lease(self, alias: str, client: str) -> AsyncIterator[Replica]:
        """The engine for the next request, which counts as one of its own until the context is left.

        Raises:
            ApiError: 503; none serves.
        """
        while ready := self.readiness.ready(alias):
            replica = self.best(ready, client)
            self.running[replica] += 1
            try:
                # Where another can answer, nothing is lost to an engine that died since it was last asked.
                if len(ready) == 1 or await _accepts(replica.url):
                    yield replica
                    return
            finally:
                self.running[replica] -= 1
            self.readiness.observe(replica, False, "the engine does not accept connections")
        raise not_ready(alias, self.readiness.status[alias])


def _rank(replica: Replica, client: str) -> int:
    return zlib.crc32(f"{client} {replica.url}".encode())


async def _accepts(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with contextlib.suppress(OSError, TimeoutError):
        _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, port), _CONNECT_SECONDS)
        writer.close()
        return True
    return False


class Choose:
    """Chooses the engine that answers."""

    def __init__(self, app: ASGIApp, replicas: Replicas) -> None:
        self._app = app
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError 503."""
        exchange = Exchange.of(scope)
        async with self._replicas.lease(exchange.alias, exchange.client) as replica:
            exchange.replica = replica
            try:
                await self._app(scope, receive, send)
            except ApiError as error:
                exchange.reason = error.reason
                raise
            finally:
                if exchange.reason == "engine_failed":
                    self._doubt(replica)

    def _doubt(self, replica: Replica) -> None:
        # An engine that fails is soon the least busy, and may accept connections for a while. It gets no more
        # until it has answered its health check.
        readiness = self._replicas.readiness
        if readiness.ready(replica.alias) != [replica]:
            readiness.observe(replica, False, "the engine broke off an answer")
