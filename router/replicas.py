"""Which of a model's engines answers a request: the least busy one that is ready."""

import asyncio
import contextlib
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from router.models import Replica
from router.readiness import Readiness, not_ready

_CONNECT_SECONDS = 1.0


class Replicas:
    """How many answers each engine decodes for this router."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.running: Counter[Replica] = Counter()

    def best(self, among: Sequence[Replica], client: str) -> Replica:
        """The one with the fewest. Among equals a client always gets the same one, for its cache."""
        return min(among, key=lambda replica: (self.running[replica], _rank(replica, client)))

    @asynccontextmanager
    async def lease(self, alias: str, client: str, sequences: int = 1) -> AsyncIterator[Replica]:
        """The engine for the next request, whose answers are counted as its own until the context is left.

        Raises:
            ApiError: 503; none is ready.
        """
        while ready := self.readiness.ready(alias):
            replica = self.best(ready, client)
            self.running[replica] += sequences
            try:
                # If another can answer, lose no request to one that died since its last health check.
                if len(ready) == 1 or await _accepts(replica.url):
                    yield replica
                    return
            finally:
                self.running[replica] -= sequences
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
