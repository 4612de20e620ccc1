"""Comments in streams whose answer does not begin for long, so that no proxy or client gives up."""

import asyncio
import contextlib

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange

# A comment, which parsers of server-sent events skip (WHATWG HTML, section 9.2.7); LiteLLM sends the same.
PING = b": ping\n\n"
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class KeepAlive:
    """Sends a comment every `seconds` until the inner app begins a stream; the head goes with the first one.

    Engines send nothing, or nothing that matters, until they have read the prompt. Comments hold nothing back
    and promise nothing: another model can still answer, and a prompt still give way. Only a failure after the
    first comment is an event in the stream instead of a status.

    A request that waits for a slot gets none, so that the end of that wait (429, 503) is always a status.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        if not exchange.stream:
            await self._app(scope, receive, send)
            return
        begun, answers = False, False
        turn = asyncio.Lock()

        async def ping() -> None:
            nonlocal begun
            with contextlib.suppress(ClientDisconnect):
                while True:
                    await asyncio.sleep(self._seconds)
                    async with turn:
                        if not begun and exchange.queue_wait is not None:
                            begun = True
                            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                        if begun:
                            await send({"type": "http.response.body", "body": PING, "more_body": True})

        async def sending(message: Message) -> None:
            nonlocal answers
            if not answers:
                async with turn:  # not in the middle of a comment
                    pinging.cancel()
                answers = True
            if not (begun and message["type"] == "http.response.start"):
                await send(message)

        pinging = asyncio.create_task(ping())
        try:
            await self._app(scope, receive, sending)
        finally:
            pinging.cancel()
