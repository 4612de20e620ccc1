"""Answers that are being generated, each in the background: a page neither delays nor ends one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal

from ui.conversation import Message, new_id
from ui.router_client import ChatRequest, Ended, Piece, Readiness, RouterClient, RouterFailure, Started

# Seconds that an answer goes on while no page shows it: longer than a slow reload or a network cut takes.
ABANDONED_AFTER = 300.0
KEPT_FOR = 3600.0  # seconds that an answer which ended then waits for its page
_POLL = 1.0
_TICK = 1.0  # seconds after which the page tells how long it has been waiting
FRAME = 0.05  # seconds between two drawings of a growing answer: smooth, at half the CPU of every token

Phase = Literal["sent", "loading", "answering", "ended"]


class Answer:
    """One answer, filled by a task of the backend's event loop and read by other threads."""

    def __init__(self, conversation: str, request: ChatRequest, earlier: Message | None = None) -> None:
        """`conversation` is its id; `earlier` is the answer that this one continues."""
        self.id = new_id()
        self.conversation = conversation
        self.request = request
        self.phase: Phase = "sent"
        self.beside: Answer | None = None  # of a second model; both end together
        self.started = time.monotonic()
        self.message = earlier or Message(role="assistant", model=request.model)
        self._watchers: set[Callable[[], None]] = set()
        self._last_output = self.started

    @property
    def ended(self) -> bool:
        """Whether nothing more will arrive."""
        return self.phase == "ended" and (self.beside is None or self.beside.ended)

    def compare(self, other: "Answer") -> None:
        """Have `other`, of a second model, beside this one."""
        self.beside, self.message.beside = other, other.message

    @property
    def waited(self) -> float:
        """Seconds since the question was sent."""
        return time.monotonic() - self.started

    @property
    def silent(self) -> float:
        """Seconds since the last output."""
        return time.monotonic() - self._last_output

    async def updates(self) -> AsyncIterator[None]:
        """Yields now, when something has arrived, and every second; a last time when the answer has ended.

        What arrives faster than a screen shows it comes together.
        """
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._watchers.add(wake)
        try:
            ended = False
            while not ended:
                changed.clear()
                ended = self.ended
                yield
                if not ended:
                    await asyncio.sleep(FRAME)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TICK):
                            await changed.wait()
        finally:
            self._watchers.discard(wake)

    def change(self, phase: Phase | None = None, *, text: str = "", reasoning: str = "") -> None:
        """Record what has arrived, and tell who follows the answer."""
        self.message.text += text
        self.message.reasoning += reasoning
        self.phase = phase or self.phase
        self._last_output = time.monotonic()
        for wake in tuple(self._watchers):
            wake()


async def give(answer: Answer, router: RouterClient, ready: Callable[[], Readiness | None]) -> None:
    """Ask the router and fill `answer`. Waits while the model is loading. Cancel it to stop."""
    message, sent, first = answer.message, time.monotonic(), None
    message.ending, message.failure, message.failure_kind, message.retry_at = "stopped", "", "", 0.0
    try:
        while True:
            try:
                async with contextlib.aclosing(router.stream(answer.request)) as events:
                    async for event in events:
                        if isinstance(event, Piece):
                            if first is None:
                                first = time.monotonic()
                                message.ttft = first - sent
                            answer.change("answering", text=event.text, reasoning=event.reasoning)
                        elif isinstance(event, Started):
                            message.left_out = event.left_out_messages
                            message.left_out_tokens = event.left_out_tokens
                        else:
                            _note_end(message, event)
                return
            except RouterFailure as failure:
                if failure.kind != "loading" or first is not None:
                    raise
            answer.change("loading")
            await _until_loaded(answer.request.model, ready)
            answer.change("sent")
            sent = time.monotonic()
    except RouterFailure as failure:
        message.ending, message.failure, message.failure_kind = "failed", str(failure), failure.kind
        message.retry_at = time.time() + failure.retry_after if failure.retry_after else 0.0
    finally:
        if first is not None:
            message.seconds = time.monotonic() - first
        answer.change("ended")


def _note_end(message: Message, event: Ended) -> None:
    message.ending = "length" if event.finish_reason == "length" else "complete"
    message.prompt_tokens = event.prompt_tokens
    message.completion_tokens = event.completion_tokens


async def _until_loaded(model: str, ready: Callable[[], Readiness | None]) -> None:
    """Wait until the model has loaded. Raises RouterFailure when it went down instead."""
    while True:
        await asyncio.sleep(_POLL)
        readiness = ready()
        status = readiness.models.get(model) if readiness else None
        if status and status.state == "down":
            raise RouterFailure("down", f"The model “{model}” did not start: {status.reason}.")
        if status and status.state == "ready":
            return
