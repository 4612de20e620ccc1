"""What the server asks besides HTTP requests: the lifespan (start and stop) and WebSockets."""

from starlette.types import ASGIApp, Receive, Scope, Send


class HttpOnly:
    """Passes HTTP requests on. `lifespan` handles the server's start and stop; WebSockets are refused."""

    def __init__(self, app: ASGIApp, lifespan: ASGIApp) -> None:
        self._app = app
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})
