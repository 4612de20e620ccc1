"""Answers that are being given, each in the background: drawing the page neither delays nor ends it."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from ui.client import Ended, Failure, Piece, Readiness, Request, Router, Started
from ui.conversation import Message, new_id

# A reload takes a second or two: a page that is gone for longer will not come back for its answer.
ABANDONED_AFTER = 5.0
_POLL = 1.0
FRAME = 0.066  # seconds between two drawings of a growing answer: smooth, at half the CPU of every token

Phase = Literal["sent", "loading", "answering", "ended"]


class Answer:
    """One answer, filled by a task of the background loop and read by the page's thread."""

    def __init__(self, conversation: str, request: Request, earlier: Message | None = None) -> None:
        """`earlier` is the answer that this one continues."""
        self.id = new_id()
        self.conversation = conversation
        self.request = request
        self.phase: Phase = "sent"
        self.started = time.monotonic()
        self.message = earlier or Message(role="assistant", model=request.model)
        self._changed = threading.Condition()
        self._version = 0
        self._came = self.started

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.phase == "ended"

    @property
    def waited(self) -> float:
        """Seconds since it was asked for."""
        return time.monotonic() - self.started

    @property
    def silent(self) -> float:
        """Seconds since something came last."""
        return time.monotonic() - self._came

    def updates(self, idle: Callable[[], None]) -> Iterator[Message]:
        """The message each time more of it has come, the first time at once, until it has ended.

        What comes faster than a screen shows is given together. `idle` is called ten times a second while
        nothing comes, so that the caller can say so, and can be interrupted.
        """
        seen, drawn = 0, 0.0
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda: self._version != seen, timeout=0.1)  # noqa: B023
            if not came:
                idle()
                continue
            time.sleep(max(0.0, drawn + FRAME - time.monotonic()))
            seen, drawn = self._version, time.monotonic()
            ended = self.ended
            if self.phase != "answering" and not ended:
                idle()
            yield self.message
            if ended:
                return

    def change(self, phase: Phase | None = None, *, text: str = "", reasoning: str = "") -> None:
        """Note what came, and wake who draws."""
        with self._changed:
            self.phase = phase or self.phase
            self.message.text += text
            self.message.reasoning += reasoning
            self._version += 1
            self._came = time.monotonic()
            self._changed.notify_all()


async def give(answer: Answer, router: Router, ready: Callable[[], Readiness | None]) -> None:
    """Ask the router and fill `answer`. Waits for a model that is loading. Cancel it to stop."""
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
            except Failure as failure:
                if failure.kind != "loading" or first is not None:
                    raise
            answer.change("loading")
            await _until_loaded(answer.request.model, ready)
            answer.change("sent")
            sent = time.monotonic()
    except Failure as failure:
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
    """Wait until the model no longer loads. Raises Failure when it went down."""
    while True:
        await asyncio.sleep(_POLL)
        readiness = ready()
        status = readiness.models.get(model) if readiness else None
        if status and status.state == "down":
            raise Failure("down", f"The model “{model}” did not start: {status.reason}.")
        if status and status.state == "ready":
            return
