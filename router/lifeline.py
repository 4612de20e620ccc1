"""A request lives as long as its client is there and its deadline is not past; then everything of it ends."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from router.body import ClientGone
from router.errors import ApiError


class Lifeline:
    """Cancels what is inside when the client goes away or after `seconds`, in whatever phase it is.

    Waiting for a slot, counting tokens and LiteLLM's connection to the engine all end by that cancellation,
    which is why nothing inside needs to watch the client. The body must have been read.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientGone, ApiError 504, or what the inner app raises."""
        work = asyncio.ensure_future(self._app(scope, receive, send))
        gone = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((work, gone), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise ClientGone if gone.done() else self._too_late()
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))

    def _too_late(self) -> ApiError:
        return ApiError(
            504,
            f"The answer was not complete within {self._seconds:g} s (REQUEST_TIMEOUT).",
            reason="deadline",
            kind="server_error",
            code="deadline_exceeded",
        )


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
