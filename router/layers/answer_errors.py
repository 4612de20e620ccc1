"""Every failure inside gets an answer in the client's own error shape, and every answer its id."""

import asyncio
import contextlib
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.body import ClientGone
from router.errors import ApiError, error_event, send_error
from router.exchange import Exchange

# A client that does not read its stream does not get to hold the request while it is told of the end.
_LAST_WORD_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Edge:
    """Adds the exchange's headers to the response and words what fails inside."""

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
        exchange = Exchange.of(scope)
        started, read = False, False

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read = not message.get("more_body", False)
            return message

        async def rest() -> Message:
            return {"type": "http.request"} if read else await receiving()

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = {"x-request-id": exchange.request_id, **exchange.headers}
                extra = [(name.encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            await self._app(scope, receiving, sending)
            return
        except ClientGone:
            exchange.aborted = True
            return
        except ApiError as error:
            failure = error
        except Exception:
            _log.exception("request %s failed", exchange.request_id)
            failure = ApiError(
                500,
                f"Duoserve failed on this request; its log tells why under {exchange.request_id}.",
                reason="internal",
                kind="server_error",
                code="internal_error",
            )
        exchange.reason = failure.reason
        if not started:
            await send_error(failure, exchange.path, rest, sending)
        elif exchange.stream:
            event = {"type": "http.response.body", "body": error_event(failure, exchange.path)}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(send(event), _LAST_WORD_SECONDS)
