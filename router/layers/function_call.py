"""`function_call` in the response instead of `tool_calls`, for clients that asked with `functions`."""

from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange

Json = dict[str, Any]
_DATA = b"data: "


class FunctionCall:
    """Rewrites the response where the exchange says `old_functions`. All else passes as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        unsent = b""

        async def rewriting(message: Message) -> None:
            nonlocal unsent
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0].lower() != b"content-length"]
                await send({**message, "headers": headers})
                return
            unsent += message.get("body", b"")
            more = message.get("more_body", False)
            if exchange.stream:
                whole, end, rest = unsent.rpartition(b"\n\n")
                events = [_event(event) for event in whole.split(b"\n\n")] if end else []
                body, unsent = b"".join(event + b"\n\n" for event in events), rest
                body += b"" if more else rest
            else:
                body = b"" if more else orjson.dumps(with_function_call(orjson.loads(unsent)))
            if body or not more:
                await send({**message, "body": body})

        await self._app(scope, receive, rewriting if exchange.old_functions else send)


def _event(event: bytes) -> bytes:
    if not event.startswith(_DATA + b"{"):
        return event
    return _DATA + orjson.dumps(with_function_call(orjson.loads(event.removeprefix(_DATA))))


def with_function_call(answer: Json) -> Json:
    """A chat completion, or a chunk of one, with its first tool call as `function_call`."""
    for choice in answer.get("choices", []):
        message: Json = choice.get("message") or choice.get("delta") or {}
        calls = message.pop("tool_calls", None) or []
        first = next((call["function"] for call in calls if call.get("index", 0) == 0), None)
        if first is not None:
            message["function_call"] = {key: value for key, value in first.items() if value is not None}
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
    return answer
