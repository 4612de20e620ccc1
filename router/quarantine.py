"""Requests of which engines die are not sent to an engine again.

A client whose request ends an engine often sends it again as soon as the engine is back. When an engine dies,
each request that failed with it is a suspect, known by the digest of its body; most of them only ran at the
same time. One that was suspected twice without having been answered in between is refused for an hour. An
innocent request must therefore be repeated word for word, and die with its neighbour again, to be refused
with it.
"""

import hashlib
import logging
import time
from collections.abc import Callable

import orjson

from router.errors import ApiError
from router.exchange import Exchange
from router.models import Replica
from router.readiness import Readiness

SECONDS = 3600.0
_DEATHS = 2
# A request fails, and a health check does, at most this long after one another when an engine dies.
_SAME_DEATH_SECONDS = 10.0
# What changes nothing for the engine: the same request is the same with another of these.
_IRRELEVANT = frozenset(("user", "stream", "stream_options", "model"))
# Suspects remembered at most; the oldest are forgotten first.
_MOST = 10_000
_log = logging.getLogger(__name__)


class Quarantine:
    """The requests that are suspected of an engine's death, and those that are refused for it."""

    def __init__(self, readiness: Readiness, clock: Callable[[], float] = time.monotonic) -> None:
        self._readiness = readiness
        self._clock = clock
        # By digest: how many deaths in a row, and when the latest was.
        self._suspects: dict[str, tuple[int, float]] = {}
        # Requests that failed, by engine, and the engines that were ready at the latest change.
        self._failed: dict[Replica, dict[str, float]] = {}
        self._ready: set[Replica] = set()
        self._died: dict[Replica, float] = {}
        readiness.watch(self._changed)

    def refuse(self, exchange: Exchange) -> None:
        """Sets the exchange's `digest`.

        Raises:
            ApiError: 400; engines died of this request.
        """
        exchange.digest = digest(exchange)
        deaths, latest = self._suspects.get(exchange.digest, (0, 0.0))
        if deaths < _DEATHS:
            return
        if (left := latest + SECONDS - self._clock()) <= 0:
            del self._suspects[exchange.digest]
            return
        raise ApiError(
            400,
            f"The engine died {deaths} times while it answered this request, so it is refused for another "
            f"{left / 60:.0f} minutes. Please change the request.",
            reason="quarantined",
            code="request_quarantined",
        )

    def served(self, exchange: Exchange) -> None:
        """The engine answered: whatever it died of, it was not this."""
        self._suspects.pop(exchange.digest, None)

    def failed(self, exchange: Exchange, replica: Replica) -> None:
        """The connection to the engine broke, or it answered that it cannot go on."""
        now = self._clock()
        if now - self._died.get(replica, -SECONDS) <= _SAME_DEATH_SECONDS:
            self._suspect(replica, exchange.digest)
        else:
            recent = {
                known: when
                for known, when in self._failed.get(replica, {}).items()
                if now - when <= _SAME_DEATH_SECONDS
            }
            self._failed[replica] = recent | {exchange.digest: now}

    def _changed(self, alias: str) -> None:
        for replica, status in self._readiness.each.items():
            if replica.alias != alias:
                continue
            if status.state == "ready":
                self._ready.add(replica)
                self._died.pop(replica, None)
                self._failed.pop(replica, None)
            elif replica in self._ready:
                self._ready.discard(replica)
                now = self._clock()
                self._died[replica] = now
                for suspect, when in self._failed.pop(replica, {}).items():
                    if now - when <= _SAME_DEATH_SECONDS:
                        self._suspect(replica, suspect)

    def _suspect(self, replica: Replica, suspect: str) -> None:
        died = self._died[replica]
        deaths, latest = self._suspects.pop(suspect, (0, -SECONDS))
        if latest == died:  # the same request was running more than once
            self._suspects[suspect] = deaths, latest
            return
        deaths += 1
        self._suspects[suspect] = deaths, died
        if len(self._suspects) > _MOST:
            del self._suspects[next(iter(self._suspects))]
        if deaths >= _DEATHS:
            _log.error(
                "engine %d of %s died of request %s for the %d. time; it is refused for an hour",
                replica.number,
                replica.alias,
                suspect[:12],
                deaths,
            )


def digest(exchange: Exchange) -> str:
    """What identifies a request to the engine, whoever sends it and by whatever name of the model."""
    relevant = {name: value for name, value in exchange.body.items() if name not in _IRRELEVANT}
    content = orjson.dumps([exchange.alias, exchange.path, relevant], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()
