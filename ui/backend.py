"""Behind the pages: one event loop for all sessions, which asks the router and watches its state."""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from ui import settings, signin
from ui.answers import ABANDONED_AFTER, KEPT_FOR, Answer, give
from ui.metrics import MetricsSample, parse
from ui.router_client import ListedModel, Readiness, RouterClient, RouterFailure, Usage
from ui.settings import AppSettings

READY_EVERY = 1.0
METRICS_EVERY = 5.0
KEPT_SECONDS = 15 * 60.0
_log = logging.getLogger(__name__)


class Backend:
    """What all sessions share. Every public member may be used from any thread."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self.readiness: Readiness | None = None  # None: the router does not answer
        self.models: list[ListedModel] = []
        self.samples: deque[MetricsSample] = deque()
        self._running: dict[str, Answer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of those, in the event loop
        self._unseen: dict[str, tuple[Answer, asyncio.TimerHandle]] = {}  # whose page is gone
        self._unstored: set[str] = set()  # whose page has yet to see them stored
        self._loop = asyncio.new_event_loop()
        self._router = RouterClient(settings)
        threading.Thread(target=self._loop.run_forever, name="backend", daemon=True).start()
        for watching in (self._watch_readiness(), self._watch_metrics()):
            self._submit(watching)

    def ask(self, answer: Answer) -> Answer:
        """Start generating `answer`; returns it."""
        self._unstored.add(answer.id)
        for each in (answer, answer.beside):
            if each:
                # Before the event loop has begun with it, a page may follow it.
                self._running[each.id] = each
                self._loop.call_soon_threadsafe(self._start, each)
        return answer

    def stop(self, answer: Answer) -> None:
        """End `answer` at once and free the engine; what has arrived stays."""
        for each in (answer, answer.beside):
            if each:
                self._loop.call_soon_threadsafe(self._cancel, each.id)

    def find(self, answer_id: str) -> Answer | None:
        """The answer with this id, if it is being generated, or has ended without anybody looking at it."""
        known = [*self._running.values(), *(answer for answer, _ in list(self._unseen.values()))]
        if found := next((each for each in known if each.id == answer_id), None):
            return found
        return next((each.beside for each in known if each.beside and each.beside.id == answer_id), None)

    def knows(self, answer_id: str) -> bool:
        """Whether a page has this answer and will store it, or may take it over."""
        return answer_id in self._unstored or answer_id in self._unseen

    def stored(self, answer: Answer) -> None:
        """The browser has this answer."""
        self._unstored.discard(answer.id)

    def take_over(self, answer_id: str) -> Answer | None:
        """The answer with this id, running or ended, if the page that asked for it is gone."""
        unseen = self._unseen.pop(answer_id, None)  # by one page only
        if unseen is None:
            return None
        self._unstored.add(answer_id)
        self._loop.call_soon_threadsafe(unseen[1].cancel)
        return unseen[0]

    def keep(self, answer: Answer) -> None:
        """Somebody is looking at `answer`."""
        self._loop.call_soon_threadsafe(self._attach, answer.id)

    def abandon(self, answer: Answer) -> None:
        """Nobody is looking at `answer` any more: it waits some minutes for somebody to come back."""
        self._loop.call_soon_threadsafe(self._abandon, answer)

    @property
    def chat_models(self) -> list[str]:
        """The models to chat with, whatever their state; none while the router does not answer."""
        others = {model.name for model in self.models if model.mode != "chat"}
        return [name for name in self.readiness.models if name not in others] if self.readiness else []

    @property
    def windows(self) -> dict[str, int]:
        """Context window of every model, in tokens, where the router knows it."""
        return {model.name: model.window for model in self.models if model.window}

    def listed(self, name: str) -> ListedModel | None:
        """What the router says about a model."""
        return next((model for model in self.models if model.name == name), None)

    def sees(self, name: str) -> bool:
        """Whether a model takes pictures."""
        known = self.listed(name)
        return bool(known and known.sees)

    def title(self, model: str) -> str:
        """A model's name for people, which says where questions to it go if they leave this service."""
        provider = next((each.provider for each in self.models if each.name == model), "")
        return f"{model} (remote: {provider})" if provider else model

    def waiting(self, model: str) -> int | None:
        """Requests in the router's queue for `model` when it was last asked; None if unknown."""
        return self.samples[-1].waiting.get(model) if self.samples else None

    def refused(self, key: str) -> None:
        """The router has refused the personal key with this SHA-256: sign out whoever signed in with it."""
        signin.sessions(self.settings.litellm_master_key.get_secret_value()).refuse(key)

    def usage(self, since: str, utc_offset: int, key: str) -> Usage:
        """The router's report of use; waits for it. Raises RouterFailure, as RouterClient.usage does."""
        work = self._router.usage(since, utc_offset, key)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _submit(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def _start(self, answer: Answer) -> None:
        task = self._loop.create_task(give(answer, self._router, lambda: self.readiness))
        self._tasks[answer.id] = task
        task.add_done_callback(functools.partial(self._end, answer))

    def _end(self, answer: Answer, task: asyncio.Task[None]) -> None:
        if answer.phase != "ended":  # cancelled before it began
            answer.message.ending = "stopped"
            answer.change("ended")
        if not task.cancelled() and (error := task.exception()):
            _log.error("an answer failed unexpectedly: %s", type(error).__name__)
        del self._tasks[answer.id], self._running[answer.id]
        if answer.id in self._unseen:
            self._abandon(answer)

    def _cancel(self, answer_id: str) -> None:
        if task := self._tasks.get(answer_id):
            task.cancel()

    def _attach(self, answer_id: str) -> None:
        if unseen := self._unseen.pop(answer_id, None):
            self._unstored.add(answer_id)
            unseen[1].cancel()

    def _abandon(self, answer: Answer) -> None:
        self._attach(answer.id)
        if answer.id in self._running:
            timer = self._loop.call_later(ABANDONED_AFTER, self._cancel, answer.id)
        else:
            timer = self._loop.call_later(KEPT_FOR, self._unseen.pop, answer.id, None)
        self._unseen[answer.id] = answer, timer
        self._unstored.discard(answer.id)

    async def _watch_readiness(self) -> None:
        while True:
            try:
                self.readiness = await self._router.ready()
                if set(self.readiness.models) - {model.name for model in self.models}:
                    # A router that refuses the key answers /ready; the first question shows why.
                    with contextlib.suppress(RouterFailure):
                        self.models = await self._router.models()
            except RouterFailure:
                self.readiness = None
            except Exception as error:
                _log.error("cannot read the answer of the router: %s", type(error).__name__)
                self.readiness = None
            await asyncio.sleep(READY_EVERY)

    async def _watch_metrics(self) -> None:
        while True:
            try:
                self.samples.append(parse(await self._router.metrics(), time.time()))
                while self.samples[-1].time - self.samples[0].time > KEPT_SECONDS:
                    self.samples.popleft()
            except RouterFailure:
                pass
            except Exception as error:
                _log.error("cannot read /metrics: %s", type(error).__name__)
            busy = any(answer.phase == "sent" for answer in list(self._running.values()))
            await asyncio.sleep(1.0 if busy else METRICS_EVERY)


@functools.cache
def shared() -> Backend:
    """The backend of this process, which its pages and `streaming.py` share."""
    return Backend(settings.load())
