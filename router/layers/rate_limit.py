"""Requests and tokens per minute and client; off unless .env or the key file sets limits."""

import logging
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.keys import KeyRing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rate:
    """Requests and tokens that a client may use in a minute; 0: no limit."""

    requests: int
    tokens: int


def storage(redis_url: str) -> Storage:
    """Where use is counted: in Redis if there is a URL, so that counts outlive a restart; else in memory."""
    if not redis_url:
        return MemoryStorage()
    options = {"implementation": "redispy", "wrap_exceptions": True, "socket_timeout": 1.0}
    store = storage_from_string(f"async+{redis_url}", **options, socket_connect_timeout=1.0)  # type: ignore[arg-type]
    assert isinstance(store, Storage)  # noqa: S101  # "async+" makes it so
    return store


class RateLimit:
    """429 with Retry-After once a client has used up its minute; x-ratelimit-* headers on every response.

    A request is counted when it arrives, its tokens when the engine has reported them. `without_storage`
    decides whether requests pass (open) or get a 503 (closed) while the storage does not answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Storage,
        ring: KeyRing,
        without_storage: Literal["open", "closed"],
    ) -> None:
        self._app = app
        self._limiter = FixedWindowRateLimiter(store)
        self._ring = ring
        self._without_storage = without_storage
        self._down = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        key = self._ring.keys.get(exchange.key_name)
        # A key that has just been removed has no limits any more; its next request is a 401.
        rate = Rate(key.requests_per_minute, key.tokens_per_minute) if key else Rate(0, 0)
        if rate == Rate(0, 0):
            await self._app(scope, receive, send)
            return
        await self._guarded(self._admit(exchange, rate))
        try:
            await self._app(scope, receive, send)
        finally:
            used = (exchange.prompt_tokens or 0) + (exchange.completion_tokens or 0)
            if rate.tokens and used:
                await self._guarded(self._spend(exchange, rate, used), refuse=False)

    async def _admit(self, exchange: Exchange, rate: Rate) -> None:
        refused: list[tuple[str, float]] = []
        for kind, amount in (("requests", rate.requests), ("tokens", rate.tokens)):
            if not amount:
                continue
            item = RateLimitItemPerMinute(amount)
            key = (kind, exchange.client)
            within = await (
                self._limiter.hit(item, *key) if kind == "requests" else self._limiter.test(item, *key)
            )
            reset, remaining = await self._limiter.get_window_stats(item, *key)
            seconds = max(reset - time.time(), 0.0) if reset else 60.0
            exchange.headers[f"x-ratelimit-limit-{kind}"] = str(amount)
            exchange.headers[f"x-ratelimit-remaining-{kind}"] = str(max(remaining, 0))
            exchange.headers[f"x-ratelimit-reset-{kind}"] = f"{math.ceil(seconds)}s"
            if not within:
                refused.append((kind, seconds))
        if refused:
            kind, seconds = max(refused, key=lambda pair: pair[1])
            wait = max(math.ceil(seconds), 1)
            raise ApiError(
                429,
                f"The limit of {getattr(rate, kind)} {kind} per minute is reached. Try again in {wait} s.",
                reason=f"{kind}_limit",
                kind=kind,
                code="rate_limit_exceeded",
                headers={"retry-after": str(wait)},
            )

    async def _spend(self, exchange: Exchange, rate: Rate, used: int) -> None:
        await self._limiter.hit(RateLimitItemPerMinute(rate.tokens), "tokens", exchange.client, cost=used)

    async def _guarded(self, work: Awaitable[None], refuse: bool = True) -> None:
        try:
            await work
        except StorageError as error:
            if not self._down:
                _log.error("rate limits fail %s: Redis does not answer (%s)", self._without_storage, error)
            self._down = True
            if refuse and self._without_storage == "closed":
                raise ApiError(
                    503,
                    "Rate limits cannot be checked at the moment. Try again soon.",
                    reason="limits_down",
                    kind="service_unavailable",
                    code="rate_limits_unavailable",
                    headers={"retry-after": "5"},
                ) from None
        else:
            if self._down:
                _log.warning("rate limits work again: Redis answers")
            self._down = False
