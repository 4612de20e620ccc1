"""Long prompts stop being read while their engine answers autocompletions.

vLLM's priorities order those that wait; a prompt that is being read takes its share of every step, however
urgent the others are. So its request is taken back, and sent again once the autocompletions are answered:
what was read of it is in the prefix cache.
"""

import asyncio
import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange, Priority
from router.models import Model, Replica
from router.paths import RESPONSES

# About 2,000 tokens. Shorter ones are read in a step or two of a GPU.
_LONG_BYTES = 8_000
# However many autocompletions come, a prompt is read for a third of its time.
_WAIT_PER_READ = 2.0
_LEAST_WAIT = 1.0
# vLLM sends some events of the Responses API before it has read the prompt.
_BEGUN = re.compile(rb"^event: (?!response\.(?:created|in_progress|queued)\n)[^\n]+\n", re.MULTILINE)


@dataclass
class _Engine:
    """What one engine does for this router."""

    urgent: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)
    reading: set[asyncio.Timeout] = field(default_factory=set)


class GiveWay:
    """Restarts streams with long prompts whose answer has not begun when an autocompletion comes.

    Sets the exchange's `gave_way`, and tells it in x-duoserve-gave-way-ms.
    """

    def __init__(self, app: ASGIApp, models: Mapping[str, Model]) -> None:
        self._app = app
        self._models = models
        self._engines: defaultdict[Replica, _Engine] = defaultdict(_Engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        engine = self._engines[exchange.chosen]
        if exchange.priority is Priority.KEYSTROKE:
            await self._first(engine, scope, receive, send)
        elif exchange.stream and exchange.size > _LONG_BYTES and self._models[exchange.alias].caches_prefixes:
            await self._giving_way(engine, exchange, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _first(self, engine: _Engine, scope: Scope, receive: Receive, send: Send) -> None:
        engine.urgent += 1
        engine.free.clear()
        now = asyncio.get_running_loop().time()
        while engine.reading:
            engine.reading.pop().reschedule(now)
        try:
            await self._app(scope, receive, send)
        finally:
            engine.urgent -= 1
            if not engine.urgent:
                engine.free.set()

    async def _giving_way(
        self, engine: _Engine, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        read = 0.0
        while True:
            patience = _LEAST_WAIT + _WAIT_PER_READ * read - exchange.gave_way
            if engine.urgent and patience > 0:
                began = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await engine.free.wait()
                exchange.gave_way += time.monotonic() - began
                exchange.headers["x-duoserve-gave-way-ms"] = f"{exchange.gave_way * 1000:.0f}"
                patience -= time.monotonic() - began
            began = time.monotonic()
            turn = asyncio.timeout(None)
            answer = _Answer(send, engine, turn, early_events=exchange.path == RESPONSES)
            try:
                async with turn:
                    if patience > 0:
                        engine.reading.add(turn)
                    else:
                        answer.begin()
                    await self._app(scope, receive, answer)
                return
            except TimeoutError:
                if not turn.expired():
                    raise
            finally:
                engine.reading.discard(turn)
            read += time.monotonic() - began


class _Answer:
    """Sends an answer on, and ends the request's giving way when it begins. What vLLM sends before that is
    kept until then, so that nobody receives it twice.
    """

    def __init__(self, send: Send, engine: _Engine, turn: asyncio.Timeout, *, early_events: bool) -> None:
        self._send = send
        self._engine = engine
        self._turn = turn
        self._early_events = early_events
        self._begun = False
        self._kept: list[Message] = []

    def begin(self) -> None:
        """From now on nothing is kept, and the request does not give way."""
        self._begun = True
        self._engine.reading.discard(self._turn)

    async def __call__(self, message: Message) -> None:
        if not self._begun:
            self._kept.append(message)
            if not self._begins(message):
                return
            self.begin()
            if self._turn.when() is not None:
                self._turn.reschedule(None)
            for kept in self._kept:
                await self._send(kept)
            return
        await self._send(message)

    def _begins(self, message: Message) -> bool:
        if message["type"] == "http.response.start":
            return False
        if not self._early_events or not message.get("more_body", False):
            return True
        body = b"".join(kept.get("body", b"") for kept in self._kept)
        return _BEGUN.search(body) is not None
