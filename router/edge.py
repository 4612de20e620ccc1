"""The outermost layer: every request gets its exchange and its id, and every failure an answer."""

import asyncio
import contextlib
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.body import ClientGone
from router.errors import ApiError, error_event, send_error
from router.exchange import Exchange

_log = logging.getLogger(__name__)


class Edge:
    """Puts the exchange into the scope, adds its headers to the response, and words what fails inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing that a client causes."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = Exchange(path=scope["path"])
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = {"x-request-id": exchange.request_id, **exchange.headers}
                extra = [(name.encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            await self._app({**scope, "duoserve": exchange}, receive, sending)
            return
        except ClientGone:
            return
        except ApiError as error:
            failure = error
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("request %s failed", exchange.request_id)
            failure = ApiError(
                500,
                f"Duoserve failed on this request; its log tells why under {exchange.request_id}.",
                reason="internal",
                kind="server_error",
                code="internal_error",
            )
        if not started:
            await send_error(failure, exchange.path, sending)
            return
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": error_event(failure, exchange.path)})
