"""Runs the functions in `router/steps`."""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from router.exchange import Exchange

# Looks at the exchange, changes it, or refuses the request by raising ApiError.
Step = Callable[[Exchange], Awaitable[None] | None]


class Steps:
    """Runs `steps` in order before the request goes on."""

    def __init__(self, app: ASGIApp, *steps: Step) -> None:
        self._app = app
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        for step in self._steps:
            pending = step(exchange)
            if pending is not None:
                await pending
        await self._app(scope, receive, send)
