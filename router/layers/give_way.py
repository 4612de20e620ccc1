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
# However many autocompletions come, a prompt is read for a fifth of its time: after these seconds it waits at
# most so many times as long as it has been read.
_LEAST_WAIT = 2.0
_WAIT_PER_READ = 4.0
# vLLM sends some events of the Responses API before it has read the prompt.
_BEGUN = re.compile(rb"^event: (?!response\.(?:created|in_progress|queued)\n)[^\n]+\n", re.MULTILINE)


@dataclass(eq=False)
class _Reading:
    """A prompt while its engine reads it. Times are seconds; `began` is of `time.monotonic()`."""

    turn: asyncio.Timeout
    began: float
    read_before: float
    waited: float

    def read(self) -> float:
        """How long it has been read, this turn included."""
        return self.read_before + time.monotonic() - self.began

    def give_way(self) -> bool:
        """End its turn, unless it has waited for long."""
        if _patience(self.read(), self.waited) <= 0:
            return False
        self.turn.reschedule(asyncio.get_running_loop().time())
        return True


def _patience(read: float, waited: float) -> float:
    return _LEAST_WAIT + _WAIT_PER_READ * read - waited


@dataclass
class _Engine:
    """What one engine does for this router."""

    urgent: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)
    reading: list[_Reading] = field(default_factory=list)


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
        engine.reading = [reading for reading in engine.reading if not reading.give_way()]
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
            if engine.urgent:
                await self._wait(engine, exchange, _patience(read, exchange.gave_way))
            turn = asyncio.timeout(None)
            reading = _Reading(turn, time.monotonic(), read, exchange.gave_way)
            answer = _Answer(send, engine, reading, early_events=exchange.path == RESPONSES)
            try:
                async with turn:
                    engine.reading.append(reading)
                    await self._app(scope, receive, answer)
                return
            except TimeoutError:
                if not turn.expired():
                    raise
            finally:
                answer.begin()
            read = reading.read()

    async def _wait(self, engine: _Engine, exchange: Exchange, patience: float) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, patience)):
                await engine.free.wait()
        exchange.gave_way += time.monotonic() - began
        exchange.headers["x-duoserve-gave-way-ms"] = f"{exchange.gave_way * 1000:.0f}"


class _Answer:
    """Sends an answer on, and ends the request's giving way when it begins. What vLLM sends before that is
    kept until then, so that nobody receives it twice.
    """

    def __init__(self, send: Send, engine: _Engine, reading: _Reading, *, early_events: bool) -> None:
        self._send = send
        self._engine = engine
        self._reading = reading
        self._early_events = early_events
        self._begun = False
        self._kept: list[Message] = []

    def begin(self) -> None:
        """From now on nothing is kept, and the request does not give way."""
        self._begun = True
        if self._reading in self._engine.reading:
            self._engine.reading.remove(self._reading)

    async def __call__(self, message: Message) -> None:
        if not self._begun:
            self._kept.append(message)
            if not self._begins(message):
                return
            self.begin()
            if self._reading.turn.when() is not None:
                self._reading.turn.reschedule(None)
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
