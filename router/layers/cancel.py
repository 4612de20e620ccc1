"""A request lives as long as its client is there and its deadline is not past; then everything of it ends."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from router.body import ClientGone
from router.errors import ApiError

_CANCEL_AGAIN_SECONDS = 0.1


class Shutdown:
    """Whether the router is being stopped, and when what still runs has to end."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def begin(self, grace: float) -> None:
        """What runs may go on for `grace` seconds. To be called in the event loop."""
        asyncio.get_running_loop().call_later(grace, self.over.set)


class Lifeline:
    """Cancels what is inside when the client goes away or after `seconds`, in whatever phase it is.

    Waiting for a slot, counting tokens and LiteLLM's connection to the engine all end by that cancellation,
    which is why nothing inside needs to watch the client. The body must have been read.
    """

    def __init__(self, app: ASGIApp, seconds: float, shutdown: Shutdown) -> None:
        self._app = app
        self._seconds = seconds
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientGone, ApiError 503 or 504, or what the inner app raises."""
        work = asyncio.ensure_future(self._app(scope, receive, send))
        gone = asyncio.ensure_future(_left(receive))
        over = asyncio.ensure_future(self._shutdown.over.wait())
        try:
            await asyncio.wait((work, gone, over), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise ClientGone
            raise _stopped() if over.done() else self._too_late()
        finally:
            gone.cancel()
            over.cancel()
            # Again and again: a library that swallows one cancellation must not keep the slot.
            while not work.done():
                work.cancel()
                await asyncio.wait((work,), timeout=_CANCEL_AGAIN_SECONDS)

    def _too_late(self) -> ApiError:
        return ApiError(
            504,
            f"The answer was not complete within {self._seconds:g} s (REQUEST_TIMEOUT).",
            reason="deadline",
            kind="server_error",
            code="deadline_exceeded",
        )


def _stopped() -> ApiError:
    return ApiError(
        503,
        "Duoserve is being stopped. Try again soon.",
        reason="shutdown",
        kind="service_unavailable",
        code="shutting_down",
        headers={"retry-after": "10"},
    )


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
