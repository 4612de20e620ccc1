"""Requests and tokens per minute: of each client, and of each model; off unless something sets limits."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError, unavailable
from router.exchange import Exchange
from router.keys import KeyRing
from router.models import Model

_WINDOW_SECONDS = 60.0
_log = logging.getLogger(__name__)


def storage(redis_url: str) -> Storage:
    """Where use is counted: in Redis if there is a URL, so that counts outlive a restart; else in memory."""
    if not redis_url:
        return MemoryStorage()
    options = {"implementation": "redispy", "wrap_exceptions": True, "socket_timeout": 1.0}
    store = storage_from_string(f"async+{redis_url}", **options, socket_connect_timeout=1.0)  # type: ignore[arg-type]
    assert isinstance(store, Storage)  # noqa: S101  # "async+" makes it so
    return store


class Limited(NamedTuple):
    """Whose minute a request uses up, and how much there is in it; 0 is no limit. `model` is set where it is
    that of a model, and not of a client.
    """

    key: tuple[str, ...]
    requests: int
    tokens: int
    model: str = ""


def of_client(exchange: Exchange, *, ring: KeyRing) -> Limited | None:
    """The limits of the request's key."""
    key = ring.keys.get(exchange.key_name)
    if key is None:  # it has just been removed; its next request is a 401
        return None
    return Limited((exchange.client,), key.requests_per_minute, key.tokens_per_minute)


def of_model(exchange: Exchange, *, models: Mapping[str, Model]) -> Limited:
    """The limits of the model's entries in config/litellm.yaml."""
    model = models[exchange.alias]
    return Limited(("model", model.alias), model.requests_per_minute, model.tokens_per_minute, model.alias)


class RateLimit:
    """429 with Retry-After once what `limited` names has used up its minute. If that is a client's,
    x-ratelimit-* headers are on every response.

    A request is counted when it arrives, its tokens when they have been reported. `without_storage` decides
    whether requests pass (open) or get a 503 (closed) while the storage does not answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Storage,
        limited: Callable[[Exchange], Limited | None],
        without_storage: Literal["open", "closed"],
    ) -> None:
        self._app = app
        self._limiter = FixedWindowRateLimiter(store)
        self._limited = limited
        self._without_storage = without_storage
        self._down = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        limited = self._limited(exchange)
        limits = _items(limited) if limited else {}
        if not limited or not limits:
            await self._app(scope, receive, send)
            return
        await self._guarded(self._check(exchange, limited, limits))
        try:
            await self._app(scope, receive, send)
        finally:
            used = (exchange.prompt_tokens or 0) + (exchange.completion_tokens or 0)
            if "tokens" in limits and used:
                await self._guarded(self._spend(limited, limits["tokens"], used), refuse=False)

    async def _check(self, exchange: Exchange, limited: Limited, limits: Mapping[str, RateLimitItem]) -> None:
        exceeded: list[tuple[float, str]] = []
        for kind, limit in limits.items():
            key = (kind, *limited.key)
            count = self._limiter.hit if kind == "requests" else self._limiter.test
            within = await count(limit, *key)
            reset, remaining = await self._limiter.get_window_stats(limit, *key)
            seconds = max(reset - time.time(), 0.0) if reset else _WINDOW_SECONDS
            if seconds > 2 * _WINDOW_SECONDS:  # the clock was set back, and the minute would last until then
                await self._limiter.clear(limit, *key)
                within, remaining, seconds = True, limit.amount, _WINDOW_SECONDS
            if not limited.model:
                exchange.headers[f"x-ratelimit-limit-{kind}"] = str(limit.amount)
                exchange.headers[f"x-ratelimit-remaining-{kind}"] = str(max(remaining, 0))
                exchange.headers[f"x-ratelimit-reset-{kind}"] = f"{math.ceil(seconds)}s"
            if not within:
                exceeded.append((seconds, kind))
        if exceeded:
            seconds, kind = max(exceeded)
            wait = max(math.ceil(seconds), 1)
            whose = f" for '{limited.model}'" if limited.model else ""
            amount = f"{limits[kind].amount} {kind} per minute{whose}"
            raise ApiError(
                429,
                f"The limit of {amount} is reached. Try again in {wait} s.",
                reason="model_limit" if limited.model else f"{kind}_limit",
                kind=kind,
                code="rate_limit_exceeded",
                headers={"retry-after": str(wait)},
            )

    async def _spend(self, limited: Limited, limit: RateLimitItem, used: int) -> None:
        await self._limiter.hit(limit, "tokens", *limited.key, cost=used)

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


def _items(limited: Limited) -> dict[str, RateLimitItem]:
    per_minute = {"requests": limited.requests, "tokens": limited.tokens}
    return {kind: RateLimitItemPerMinute(amount) for kind, amount in per_minute.items() if amount}
