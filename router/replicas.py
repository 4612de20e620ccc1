"""Which of a model's engines answers a request: the least busy one that is ready."""

import asyncio
import contextlib
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from router.exchange import Exchange
from router.models import Replica
from router.readiness import Readiness, not_ready

_CONNECT_SECONDS = 1.0


class Replicas:
    """Which requests of this router each engine has."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.running: Counter[Replica] = Counter()
        self._exchanges: dict[Replica, list[Exchange]] = {}

    def best(self, among: Sequence[Replica], client: str) -> Replica:
        """The one with the fewest requests. Among equals a client always gets the same one, for its cache."""
        return min(among, key=lambda replica: (self.running[replica], _rank(replica, client)))

    @asynccontextmanager
    async def lease(self, exchange: Exchange) -> AsyncIterator[Replica]:
        """The engine for a request, which is counted as its own until the context is left.

        Raises:
            ApiError: 503; none is ready.
        """
        while ready := self.readiness.ready(exchange.alias):
            replica = self.best(ready, exchange.client)
            self.running[replica] += 1
            self._exchanges.setdefault(replica, []).append(exchange)
            try:
                # If another can answer, lose no request to one that died since its last health check.
                if len(ready) == 1 or await _accepts(replica.url):
                    yield replica
                    return
            finally:
                self.running[replica] -= 1
                self._exchanges[replica].remove(exchange)
            self.readiness.observe(replica, False, "the engine does not accept connections")
        raise not_ready(exchange.alias, self.readiness.status[exchange.alias])

    def abandon(self, replica: Replica) -> None:
        """End the requests that this engine has."""
        for exchange in self._exchanges.get(replica, []):
            exchange.abandoned.set()


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
