"""The innermost app: passes a request on to its engine, and cleans the response."""

import asyncio
import logging
import re

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from router.errors import engine_failed, engine_refused
from router.exchange import Exchange
from router.litellm.pass_through import PassThrough

# An engine's error inside a stream, in OpenAI's and in Anthropic's shape. Text never contains such a line.
ENGINE_ERROR = re.compile(rb'(?:^|\n)(?:data: \{"error":.*"code":\s*5\d\d|event: error)')
# The headers of the engine's response that a client may see.
_PASSED_HEADERS = (b"content-type", b"content-length", b"cache-control")
_log = logging.getLogger(__name__)


class Relay:
    """Sends the exchange's body to its replica.

    Raises ApiError with the engine's refusal, or 503 if the response breaks off.
    """

    def __init__(self, pass_through: PassThrough) -> None:
        self._pass_through = pass_through

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        response = _Response(exchange, send)
        body = orjson.dumps(exchange.body)
        try:
            await self._pass_through(scope, exchange.chosen, exchange.path, body, response)
        except ClientDisconnect:
            raise
        except Exception as error:
            _log.warning("the response of %s broke off: %s", exchange.alias, type(error).__name__)
            raise engine_failed(exchange.alias) from None
        if response.error_status is not None:
            raise engine_refused(response.error_status, response.error_body, exchange.alias)
        if not response.complete:
            raise engine_failed(exchange.alias)


class _Response:
    """Sends a response on without the headers that reveal LiteLLM and the engine; keeps an error back."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
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
            await self._send({**message, "headers": headers})
        elif self.error_status is not None:
            self.error_body += message.get("body", b"")
        else:
            part = message.get("body", b"")
            if b"error" in part and ENGINE_ERROR.search(part):
                self._exchange.reason = "engine_failed"
            await self._send(message)
            self.complete = not message.get("more_body", False)
