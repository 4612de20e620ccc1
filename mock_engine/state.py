"""What the connections share."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque

from mock_engine.knobs import Knobs
from mock_engine.prompts import Json, conversation, text_of

MAX_RECORDED = 5000
_OVERRIDE = re.compile(r"mock:\s*(?=\{)")


class State:
    """The state that connections share: knobs, slots, and the record of requests."""

    def __init__(self, models: tuple[str, ...], knobs: Knobs) -> None:
        """Serve `models` under `knobs`."""
        self.models = models
        self.original = knobs
        self.knobs = knobs
        self.temporary: tuple[Knobs, int] | None = None
        self.started = time.monotonic()
        self.requests: deque[Json] = deque(maxlen=MAX_RECORDED)
        self.serial = 0
        self.running = 0
        self.tokens = 0  # sent so far
        self.queue: deque[asyncio.Future[None]] = deque()

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        return self.knobs.healthy and time.monotonic() - self.started >= self.knobs.load_seconds

    def knobs_for(self, body: Json) -> Knobs:
        """The knobs in force for a request; one of those that `times` counts is used up."""
        knobs = self.knobs
        if self.temporary:
            knobs, left = self.temporary
            self.temporary = (knobs, left - 1) if left > 1 else None
        last = next(
            (text_of(m.get("content")) for m in reversed(conversation(body)) if m.get("role") == "user"), ""
        )
        if match := _OVERRIDE.search(last):
            knobs = knobs.replaced(json.JSONDecoder().raw_decode(last, match.end())[0])
        return knobs

    async def progress(self) -> None:
        """Wait as long as the engine hangs."""
        while self.knobs.hang:  # noqa: ASYNC110 - a knob is no event
            await asyncio.sleep(0.01)

    async def acquire(self, slots: int) -> None:
        """Wait for a slot, in order of arrival."""
        if slots and (self.running >= slots or self.queue):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.queue.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place in self.queue:
                    self.queue.remove(place)
                elif place.done() and not place.cancelled():
                    self.release(slots)  # the slot was handed over, but its owner has left
                raise
        else:
            self.running += 1

    def release(self, slots: int) -> None:
        """Give a slot back, to the first that waits."""
        self.running -= 1
        while self.queue and (not slots or self.running < slots):
            place = self.queue.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)

    def metrics(self) -> str:
        """The figures that routers and dashboards read, in Prometheus' text format."""
        label = f'{{engine="0",model_name="{self.models[0]}"}}'
        lines = []
        for name, value, what in (
            ("vllm:num_requests_running", self.running, "Number of requests in model execution batches."),
            ("vllm:num_requests_waiting", len(self.queue), "Number of requests waiting to be processed."),
            ("vllm:kv_cache_usage_perc", 0, "KV-cache usage. 1 means 100 percent usage."),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name}{label} {float(value)}"]
        total = "vllm:generation_tokens_total"
        lines += [f"# HELP {total} Number of generation tokens processed.", f"# TYPE {total} counter"]
        lines.append(f"{total}{label} {float(self.tokens)}")
        return "\n".join(lines) + "\n"
