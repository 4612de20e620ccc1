"""Token counts of every answer, read from its start and end only; the middle passes untouched."""

import re
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange
from router.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

# A streamed chunk without choices is the one that carries the usage (OpenAI, `stream_options.include_usage`).
# Inside a string the quotes would be escaped, so the text of an answer cannot match.
_USAGE_CHUNK = re.compile(rb'"choices":\s*\[\]')
_TAIL = 8192
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d+)')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')
_CACHED = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens)":\s*(\d+)')
_CREATED = re.compile(rb'"cache_creation_input_tokens":\s*(\d+)')
_SEQUENCE = re.compile(rb'"sequence_number":\s*(\d+)')
_WITH_STREAM_OPTIONS = (CHAT, COMPLETIONS)


class CountUsage:
    """Sets the exchange's token counts when the answer ends, complete or not; of one that is not streamed,
    before its last part goes on.

    Asks the engine for the usage of every stream, and removes it for clients that did not ask for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        hide = False
        if exchange.stream and exchange.path in _WITH_STREAM_OPTIONS:
            options: dict[str, Any] = exchange.body.get("stream_options") or {}
            hide = not options.get("include_usage")
            continuous = bool(options.get("continuous_usage_stats")) and not hide
            exchange.body["stream_options"] = {"include_usage": True}
            if continuous:
                exchange.body["stream_options"]["continuous_usage_stats"] = True
        head, tail = b"", b""

        async def watching(message: Message) -> None:
            nonlocal head, tail
            part = message.get("body")
            if part:
                head = head or part[:_TAIL]
                tail = part if len(part) >= _TAIL else tail[len(part) - _TAIL :] + part
                if not exchange.stream and not message.get("more_body", False):
                    _count(exchange, head, tail)
                if hide and _USAGE_CHUNK.search(part):
                    message = {**message, "body": without_usage(part)}
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            _count(exchange, head, tail)


def _count(exchange: Exchange, head: bytes, tail: bytes) -> None:
    exchange.prompt_tokens = _last(_PROMPT, tail, head)
    exchange.completion_tokens = _last(_COMPLETION, tail)
    exchange.cached_tokens = _last(_CACHED, tail, head)
    if exchange.path == MESSAGES and exchange.prompt_tokens is not None:
        # Anthropic counts apart what was in the cache, and what is new in it; here the prompt is all of it.
        exchange.prompt_tokens += (exchange.cached_tokens or 0) + (_last(_CREATED, tail, head) or 0)
    if exchange.path == RESPONSES:
        exchange.sequence_number = _last(_SEQUENCE, tail)


def without_usage(part: bytes) -> bytes:
    """`part` of a stream without the events that carry usage and no choices."""
    events = part.split(b"\n\n")
    return b"\n\n".join(event for event in events if not _is_usage(event))


def _is_usage(event: bytes) -> bool:
    if not event.startswith(b"data: ") or not _USAGE_CHUNK.search(event):
        return False
    try:
        data = orjson.loads(event[6:])
    except orjson.JSONDecodeError:
        return False
    return data.get("choices") == [] and data.get("usage") is not None


def _last(pattern: re.Pattern[bytes], *texts: bytes) -> int | None:
    """The last number in the first of `texts` that has one."""
    return next((int(found[-1]) for text in texts if (found := pattern.findall(text))), None)
