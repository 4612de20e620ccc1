"""Ends a request, and all that works for it, when nobody needs it any more."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError, engine_hangs, unavailable
from router.exchange import Exchange

_CANCEL_AGAIN_SECONDS = 0.1


class Cancel:
    """Cancels what is inside when the client leaves, after `timeout` seconds, when `stopping` is set, or when
    the engine hangs (`Exchange.abandoned`).

    The wait for a slot, the token counts and LiteLLM's connection to the engine all end by that cancellation,
    so nothing inside needs to watch the client. The body must have been read.
    """

    def __init__(self, app: ASGIApp, timeout: float, stopping: asyncio.Event) -> None:
        self._app = app
        self._timeout = timeout
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._app(scope, receive, send))
        left = asyncio.ensure_future(_left(receive))
        stopping = asyncio.ensure_future(self._stopping.wait())
        exchange = Exchange.of(scope)
        abandoned = asyncio.ensure_future(exchange.abandoned.wait())
        try:
            await asyncio.wait(
                (work, left, stopping, abandoned),
                timeout=self._timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
            if left.done():
                raise ClientDisconnect
            if abandoned.done():
                raise engine_hangs(exchange.alias)
            raise _shutting_down() if stopping.done() else self._too_late()
        finally:
            left.cancel()
            stopping.cancel()
            abandoned.cancel()
            # Again and again: a library that swallows one cancellation must not keep the slot.
            while not work.done():
                work.cancel()
                await asyncio.wait((work,), timeout=_CANCEL_AGAIN_SECONDS)

    def _too_late(self) -> ApiError:
        return ApiError(
            504,
            f"The answer was not complete within {self._timeout:g} s (REQUEST_TIMEOUT).",
            reason="deadline",
            kind="server_error",
            code="deadline_exceeded",
        )


def _shutting_down() -> ApiError:
    return unavailable("shutting_down", "Duoserve is shutting down. Try again soon.", 10, reason="shutdown")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
