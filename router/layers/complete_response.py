"""The fields of OpenAI's response object that vLLM leaves out, and clients with a schema miss."""

import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange
from router.paths import RESPONSES

# Stands before the output, near the start of an event. Inside a string the quotes would be escaped.
_OBJECT = re.compile(rb'"object":\s*"response",')
_BETWEEN_EVENTS = re.compile(rb"(?<=\n\n)")
_EVENT = re.compile(rb"event: (\S+)")
_FIELDS = b'"completed_at":%b,"error":null,"store":false,"safety_identifier":null,"prompt_cache_key":null,'
_ENDS = (b"response.completed", b"response.incomplete", b"response.failed")


class CompleteResponse:
    """Adds the fields to each response object of the Responses API. All else passes as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def completing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0].lower() != b"content-length"]
                message = {**message, "headers": headers}
            elif _OBJECT.search(message.get("body", b"")):
                message = {**message, "body": completed(message["body"])}
            await send(message)

        await self._app(scope, receive, completing if Exchange.of(scope).path == RESPONSES else send)


def completed(part: bytes) -> bytes:
    """`part` of a response, streamed or whole, with the missing fields in its response objects."""
    return b"".join(map(_event_completed, _BETWEEN_EVENTS.split(part)))


def _event_completed(event: bytes) -> bytes:
    name = _EVENT.match(event)
    ended = name is None or name[1] in _ENDS
    fields = _FIELDS % (str(int(time.time())).encode() if ended else b"null")
    # Only the first: a tool's schema may look the same, and comes later.
    return _OBJECT.sub(lambda found: found[0] + fields, event, count=1)
