"""Which models are ready: the engines' /health, polled in the background."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import aiohttp

from router.background import background
from router.errors import ApiError, unavailable
from router.models import Model, Replica

State = Literal["ready", "loading", "down"]
_ORDER: tuple[State, ...] = ("ready", "loading", "down")
POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 2.0
# An engine that has not answered this long after the router's start is down.
_LOADING_SECONDS = 600.0


@dataclass(frozen=True)
class Status:
    """The state of a model or of one engine, since when (UTC) and why."""

    state: State
    since: datetime
    reason: str

    def as_json(self) -> dict[str, str]:
        """Its entry in the response of /ready."""
        return {
            "state": self.state,
            "since": self.since.isoformat(timespec="milliseconds"),
            "reason": self.reason,
        }


class Readiness:
    """Polls every engine's /health and remembers the results, while it is entered.

    An engine that has never been ready is `loading`, since vLLM opens its port only when the model is loaded;
    one that was ready and stopped answering is `down` until it answers again, and so is one that hangs
    (progress.py), whatever it answers. A model is ready when at least one of its engines is.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        first = Status("loading", datetime.now(UTC), "the engine has not answered yet")
        self._began = time.monotonic()
        self._replicas = {alias: model.replicas for alias, model in models.items()}
        self.each = {replica: first for replicas in self._replicas.values() for replica in replicas}
        self._were_ready: set[Replica] = set()
        # The engines that hang, and the reason.
        self.hung: dict[Replica, str] = {}
        self._watchers: list[Callable[[str], None]] = []
        self.status = dict.fromkeys(models, first)
        self._lost = {alias: asyncio.Event() for alias in models}
        for alias, model in models.items():
            if model.remote:  # whether its provider answers, each request finds out
                self.status[alias] = Status("ready", first.since, f"remote: {model.provider} answers")
            else:
                self._lost[alias].set()

    async def __aenter__(self) -> "Readiness":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))
        self._polling = background(*(partial(self._poll, replica) for replica in self.each))
        await self._polling.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._polling.__aexit__(None, None, None)
        await self._session.close()

    def is_ready(self, alias: str) -> bool:
        """Whether the model is ready."""
        return self.status[alias].state == "ready"

    async def lost(self, alias: str) -> None:
        """Returns as soon as the model is not ready."""
        await self._lost[alias].wait()

    def as_json(self) -> dict[str, Any]:
        """The response of /ready."""
        ready = any(status.state == "ready" for status in self.status.values())
        return {
            "status": "ready" if ready else "unavailable",
            "models": {
                alias: {
                    **status.as_json(),
                    "engines": [self.each[replica].as_json() for replica in self._replicas[alias]],
                }
                for alias, status in self.status.items()
            },
        }

    def ready(self, alias: str) -> list[Replica]:
        """The engines of `alias` that are ready."""
        return [replica for replica in self._replicas[alias] if self.each[replica].state == "ready"]

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call `changed` with the alias whenever the state of one of its engines changes."""
        self._watchers.append(changed)

    def hang(self, replica: Replica, reason: str) -> None:
        """The engine is down, whatever its health check says, until it is no longer in `hung`."""
        self.hung[replica] = reason
        self.observe(replica, False, reason)

    def observe(self, replica: Replica, healthy: bool, reason: str) -> None:
        """Update the state of an engine after one health check."""
        if replica in self.hung:
            healthy, reason = False, self.hung[replica]
        state: State = "ready" if healthy else "down" if replica in self._were_ready else "loading"
        before = self.each[replica]
        if healthy:
            self._were_ready.add(replica)
        elif before.state == "loading" and time.monotonic() - self._began > _LOADING_SECONDS:
            state, reason = "down", f"{reason}; not loaded after {_LOADING_SECONDS:.0f} s"
        elif before.state == "down":
            state = "down"
        if (state, reason) == (before.state, before.reason):
            return
        since = before.since if state == before.state else datetime.now(UTC)
        self.each[replica] = Status(state, since, reason)
        self._sum_up(replica.alias)
        if state != before.state:
            for changed in self._watchers:
                changed(replica.alias)

    def _sum_up(self, alias: str) -> None:
        replicas, ready = self._replicas[alias], self.ready(alias)
        # The best engine's state is the model's.
        best = min((self.each[replica] for replica in replicas), key=lambda one: _ORDER.index(one.state))
        few = best.state == "ready" and len(ready) < len(replicas)
        reason = f"serving with {len(ready)} of {len(replicas)} engines" if few else best.reason
        before = self.status[alias]
        since = before.since if best.state == before.state else datetime.now(UTC)
        self.status[alias] = Status(best.state, since, reason)
        (self._lost[alias].clear if best.state == "ready" else self._lost[alias].set)()

    async def _poll(self, replica: Replica) -> None:
        late = 0
        while True:
            try:
                healthy, reason = await self._ask(replica)
                late = 0
            except TimeoutError:
                late += 1
                healthy, reason = False, f"the engine did not answer within {_TIMEOUT_SECONDS:.0f} s"
            # A single timeout may only mean that the machine is busy.
            if late != 1:
                self.observe(replica, healthy, reason)
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, replica: Replica) -> tuple[bool, str]:
        try:
            async with self._session.get(f"{replica.url}/health") as response:
                if response.status == 200:
                    return True, "serving"
                return False, f"the engine's health check answered {response.status}"
        except aiohttp.ServerTimeoutError:
            raise TimeoutError from None
        except aiohttp.ClientError:
            return False, "the engine does not accept connections"


def not_ready(alias: str, status: Status) -> ApiError:
    """503 for a model that is loading or down."""
    state, retry_after = ("is still loading", 5) if status.state == "loading" else ("is down", 2)
    text = f"The model '{alias}' {state} ({status.reason}). "
    text += "Try again soon; GET /ready shows when it is ready."
    return unavailable(f"model_{status.state}", text, retry_after, reason="not_ready")
