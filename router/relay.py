"""The innermost app: passes a request on to an engine or a provider, and cleans the response."""

import asyncio
import logging
import re
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.streams import ANNOUNCEMENTS

# Where an error begins inside a stream, in the shape of one of the APIs. No text looks like it.
ENGINE_ERROR = re.compile(rb'(?:^|(?<=\n))(?:data: \{"error":|event: (?:error|response\.failed)\n)')
# The headers of the response that a client may see.
_PASSED_HEADERS = (b"content-type", b"content-length", b"cache-control")
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Who answers, and how its errors are told."""

    async def __call__(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Send the exchange's body on, and the response to `send`."""

    def failed(self, exchange: Exchange) -> ApiError:
        """The response broke off."""

    def refused(self, exchange: Exchange, status: int, body: bytes) -> ApiError:
        """The response is an error."""

    def broke_off(self, exchange: Exchange, events: bytes) -> ApiError:
        """The response is a stream that ended with `events`, an error."""


def _first(error: BaseException) -> BaseException:
    # LiteLLM's handler of errors asks whether its database failed. That needs a package that is not here,
    # and so hides the error behind one of its own.
    while error.__context__ is not None:
        error = error.__context__
    return error


class Relay:
    """Sends the exchange's body to `backend`.

    Raises ApiError with its refusal or failure, also where a stream ends with it, or if the response breaks
    off.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        response = _Response(exchange, send)
        try:
            await self._backend(scope, exchange, response)
        except ClientDisconnect:
            raise
        except Exception as error:
            _log.warning("the response of %s broke off: %s", exchange.alias, type(_first(error)).__name__)
            raise self._backend.failed(exchange) from None
        if response.error_status is not None:
            raise self._backend.refused(exchange, response.error_status, response.error_body)
        if response.error_body:
            raise self._backend.broke_off(exchange, response.error_body)
        if not response.complete:
            raise self._backend.failed(exchange)


class _Response:
    """Sends a response on without the headers that reveal LiteLLM and the engine; keeps an error back.

    Its head, and events that only announce an answer, go with what follows them: vLLM and LiteLLM begin a
    stream before the request has been looked at, and a refusal or a failure should still have its own status.
    """

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._held: list[Message] = []
        self.error_status: int | None = None
        self.error_body = b""
        self.complete = False
        self._cancelled = False

    async def __call__(self, message: Message) -> None:
        if self._cancelled:
            return
        try:
            await self._pass_on(message)
        except asyncio.CancelledError:
            # LiteLLM closes its connection to the engine if it is cancelled while reading from it, but not
            # while writing to us, which is where a slow client holds it up. So let it read once more.
            self._cancelled = True
            if task := asyncio.current_task():
                asyncio.get_running_loop().call_soon(task.cancel)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self.error_status = message["status"]
                return
            headers = [pair for pair in message["headers"] if pair[0].lower() in _PASSED_HEADERS]
            self._held = [{**message, "headers": headers}]
        elif self.error_status is not None or self.error_body:
            self.error_body += message.get("body", b"")
        else:
            part = message.get("body", b"")
            if b"error" in part and self._exchange.stream and (found := ENGINE_ERROR.search(part)):
                self.error_body, part = part[found.start() :], part[: found.start()]
                message = {**message, "body": part, "more_body": True}
                if not part:
                    return
            more = message.get("more_body", False)
            if self._held and more and self._exchange.stream and ANNOUNCEMENTS.fullmatch(part):
                self._held.append(message)
                return
            held, self._held = self._held, []
            for each in (*held, message):
                await self._send(each)
            self.complete = not more
