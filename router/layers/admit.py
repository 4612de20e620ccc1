"""Slots for every request, or a place in the queue."""

import asyncio
import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from router.admission import Admission, QueueFull
from router.errors import ApiError
from router.exchange import Exchange, Priority
from router.paths import COUNTING
from router.readiness import Readiness, not_ready


class Admit:
    """Holds a request's slots while the inner app answers. 429 if the queue is full or the wait longer than
    `max_wait` seconds; 503 to all that wait as soon as their model is down.
    """

    def __init__(self, app: ASGIApp, admission: Admission, readiness: Readiness, max_wait: float) -> None:
        self._app = app
        self._admission = admission
        self._readiness = readiness
        self._max_wait = max_wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        if exchange.path in COUNTING:  # takes milliseconds and no slot
            await self._app(scope, receive, send)
            return
        entered = time.monotonic()
        slot = asyncio.Event()
        try:
            ticket = self._admission.enter(
                exchange.alias,
                exchange.client,
                exchange.priority is Priority.KEYSTROKE,
                slot.set,
                exchange.group,
                exchange.sequences,
                last=exchange.priority is Priority.BACKGROUND,
            )
        except QueueFull:
            raise self._refusal(exchange.alias, "The queue is full", "queue_full") from None
        try:
            if not slot.is_set():
                await self._wait(exchange.alias, slot)
            exchange.queue_wait = time.monotonic() - entered
            exchange.queue_position = ticket.position
            exchange.in_flight = self._admission.all_running()
            exchange.headers["x-duoserve-queue-wait-ms"] = f"{exchange.queue_wait * 1000:.0f}"
            exchange.headers["x-duoserve-queue-position"] = str(ticket.position)
            exchange.headers["x-duoserve-in-flight"] = str(exchange.in_flight)
            await self._app(scope, receive, send)
        finally:
            self._admission.leave(ticket)

    async def _wait(self, alias: str, slot: asyncio.Event) -> None:
        granted = asyncio.ensure_future(slot.wait())
        lost = asyncio.ensure_future(self._readiness.lost(alias))
        try:
            await asyncio.wait((granted, lost), timeout=self._max_wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            granted.cancel()
            lost.cancel()
        # An engine that hangs gives no slot back, so nobody must have to wait for one.
        status = self._readiness.status[alias]
        if status.state != "ready":
            raise not_ready(alias, status)
        if not slot.is_set():
            raise self._refusal(
                alias, f"No slot became free within {self._max_wait:g} s (MAX_WAIT)", "queue_timeout"
            )

    def _refusal(self, alias: str, cause: str, reason: str) -> ApiError:
        seconds = math.ceil(min(max(self._admission.drain_seconds(alias), 1.0), max(self._max_wait, 1.0)))
        return ApiError(
            429,
            f"{cause}: every slot is busy and {self._admission.all_waiting(alias)} requests are waiting. "
            f"Try again in {seconds} s.",
            reason=reason,
            kind="rate_limit_error",
            code=reason,
            headers={"retry-after": str(seconds)},
        )
