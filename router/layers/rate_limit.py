"""Requests and tokens per minute and client; off unless .env or the key file sets limits."""

import logging
import math
import time
from collections.abc import Awaitable, Mapping
from typing import Literal

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError, unavailable
from router.exchange import Exchange
from router.keys import KeyRing

_log = logging.getLogger(__name__)


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
        limits = self._limits(exchange.key_name)
        if not limits:
            await self._app(scope, receive, send)
            return
        await self._guarded(self._check(exchange, limits))
        try:
            await self._app(scope, receive, send)
        finally:
            used = (exchange.prompt_tokens or 0) + (exchange.completion_tokens or 0)
            if "tokens" in limits and used:
                await self._guarded(self._spend(exchange, limits["tokens"], used), refuse=False)

    def _limits(self, key_name: str) -> dict[str, RateLimitItem]:
        key = self._ring.keys.get(key_name)
        if key is None:  # it has just been removed; its next request is a 401
            return {}
        per_minute = {"requests": key.requests_per_minute, "tokens": key.tokens_per_minute}
        return {kind: RateLimitItemPerMinute(amount) for kind, amount in per_minute.items() if amount}

    async def _check(self, exchange: Exchange, limits: Mapping[str, RateLimitItem]) -> None:
        exceeded: list[tuple[float, str]] = []
        for kind, limit in limits.items():
            key = (kind, exchange.client)
            count = self._limiter.hit if kind == "requests" else self._limiter.test
            within = await count(limit, *key)
            reset, remaining = await self._limiter.get_window_stats(limit, *key)
            seconds = max(reset - time.time(), 0.0) if reset else 60.0
            exchange.headers[f"x-ratelimit-limit-{kind}"] = str(limit.amount)
            exchange.headers[f"x-ratelimit-remaining-{kind}"] = str(max(remaining, 0))
            exchange.headers[f"x-ratelimit-reset-{kind}"] = f"{math.ceil(seconds)}s"
            if not within:
                exceeded.append((seconds, kind))
        if exceeded:
            seconds, kind = max(exceeded)
            wait = max(math.ceil(seconds), 1)
            raise ApiError(
                429,
                f"The limit of {limits[kind].amount} {kind} per minute is reached. Try again in {wait} s.",
                reason=f"{kind}_limit",
                kind=kind,
                code="rate_limit_exceeded",
                headers={"retry-after": str(wait)},
            )

    async def _spend(self, exchange: Exchange, limit: RateLimitItem, used: int) -> None:
        await self._limiter.hit(limit, "tokens", exchange.client, cost=used)

    async def _guarded(self, work: Awaitable[None], refuse: bool = True) -> None:
        try:
            await work
        except StorageError as error:
            if not self._down:
                _log.error("rate limits fail %s: Redis does not answer (%s)", self._without_storage, error)
            self._down = True
            if refuse and self._without_storage == "closed":
                text = "Rate limits cannot be checked at the moment. Try again soon."
                raise unavailable("rate_limits_unavailable", text, 5, reason="limits_down") from None
        else:
            if self._down:
                _log.warning("rate limits work again: Redis answers")
            self._down = False
