"""The chat app's background: one event loop for all sessions, which asks the router and watches its state."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from ui.answers import ABANDONED_AFTER, Answer, give
from ui.client import Failure, Model, Readiness, Router
from ui.settings import Settings
from ui.slo import Sample, parse

READY_EVERY = 1.0
METRICS_EVERY = 5.0
KEPT_SECONDS = 15 * 60.0
_log = logging.getLogger(__name__)


class Service:
    """What all sessions share. Every public member may be used from any thread."""

    def __init__(self, settings: Settings) -> None:
        """Starts the loop's thread and begins to watch the router."""
        self.settings = settings
        self.readiness: Readiness | None = None  # None: the router does not answer
        self.models: list[Model] = []
        self.samples: deque[Sample] = deque()
        self._running: dict[str, tuple[Answer, asyncio.Task[None]]] = {}
        self._abandoned: dict[str, asyncio.TimerHandle] = {}
        self._loop = asyncio.new_event_loop()
        self._router = Router(settings)
        threading.Thread(target=self._loop.run_forever, name="service", daemon=True).start()
        for watching in (self._watch_readiness(), self._watch_metrics()):
            self._submit(watching)

    def ask(self, answer: Answer) -> Answer:
        """Begin to give `answer`; returns it."""
        self._submit(self._give(answer))
        return answer

    def stop(self, answer: Answer) -> None:
        """End `answer` at once and free the engine; what came stays."""
        self._loop.call_soon_threadsafe(self._cancel, answer.id)

    def is_running(self, answer_id: str) -> bool:
        """Whether this answer is being given, to whichever page."""
        return answer_id in self._running

    def take_over(self, answer_id: str) -> Answer | None:
        """The answer with this id, if the page that asked for it went away: it was reloaded."""
        if answer_id not in self._abandoned or answer_id not in self._running:
            return None
        self._loop.call_soon_threadsafe(self._attach, answer_id)
        return self._running[answer_id][0]

    def keep(self, answer: Answer) -> None:
        """Somebody looks at `answer` again."""
        self._loop.call_soon_threadsafe(self._attach, answer.id)

    def abandon(self, answer: Answer) -> None:
        """Nobody looks at `answer` any more: end it, unless somebody comes back for it within seconds."""
        self._loop.call_soon_threadsafe(self._abandon, answer.id)

    @property
    def windows(self) -> dict[str, int]:
        """Context window of every model, in tokens, as far as the router told."""
        return {model.name: model.window for model in self.models if model.window}

    def waiting(self, model: str) -> int | None:
        """Requests in the router's queue for `model` at the last look, if the router tells."""
        return self.samples[-1].waiting.get(model) if self.samples else None

    def _submit(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _give(self, answer: Answer) -> None:
        task = asyncio.create_task(give(answer, self._router, lambda: self.readiness))
        self._running[answer.id] = answer, task
        try:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                _log.error("an answer failed unexpectedly: %s", type(error).__name__)
        finally:
            self._running.pop(answer.id, None)
            self._attach(answer.id)

    def _cancel(self, answer_id: str) -> None:
        if entry := self._running.get(answer_id):
            entry[1].cancel()

    def _attach(self, answer_id: str) -> None:
        if timer := self._abandoned.pop(answer_id, None):
            timer.cancel()

    def _abandon(self, answer_id: str) -> None:
        if answer_id in self._running:
            self._attach(answer_id)
            self._abandoned[answer_id] = self._loop.call_later(ABANDONED_AFTER, self._cancel, answer_id)

    async def _watch_readiness(self) -> None:
        while True:
            try:
                self.readiness = await self._router.ready()
                if not self.models:
                    self.models = await self._router.models()
            except Failure:
                self.readiness = None
            except Exception as error:
                _log.error("/ready was not understood: %s", type(error).__name__)
                self.readiness = None
            await asyncio.sleep(READY_EVERY)

    async def _watch_metrics(self) -> None:
        while True:
            try:
                self.samples.append(parse(await self._router.metrics(), time.time()))
                while self.samples[-1].time - self.samples[0].time > KEPT_SECONDS:
                    self.samples.popleft()
            except Failure:
                pass
            except Exception as error:
                _log.error("/metrics was not understood: %s", type(error).__name__)
            busy = any(answer.phase == "sent" for answer, _ in list(self._running.values()))
            await asyncio.sleep(1.0 if busy else METRICS_EVERY)
