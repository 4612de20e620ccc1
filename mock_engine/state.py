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
        self.queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self.held = 0  # tokens of the KV cache
        self.read_until = 0.0
        # By histogram: how many times were observed, and their sum.
        self.times = dict.fromkeys(
            ("request_queue_time", "request_prefill_time", "inter_token_latency"), (0, 0.0)
        )

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

    async def acquire(self, knobs: Knobs, size: int) -> None:
        """Wait, in order of arrival, for a slot and for `size` tokens of the KV cache."""
        arrived = time.monotonic()
        if (knobs.slots or knobs.kv_tokens) and (self.queue or not self._fits(knobs, size)):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.queue.append((place, size))
            try:
                await place
            except asyncio.CancelledError:
                if (place, size) in self.queue:
                    self.queue.remove((place, size))
                    self._hand_out(knobs)
                elif place.done() and not place.cancelled():
                    self.release(knobs, size)  # the slot was handed over, but its owner has left
                raise
        else:
            self._take(size)
        self.observe("request_queue_time", time.monotonic() - arrived)

    def release(self, knobs: Knobs, size: int) -> None:
        """Give a slot and its tokens back, to the first that wait."""
        self.running -= 1
        self.held -= size
        self._hand_out(knobs)

    def _hand_out(self, knobs: Knobs) -> None:
        while self.queue and self._fits(knobs, self.queue[0][1]):
            place, size = self.queue.popleft()
            if not place.done():
                self._take(size)
                place.set_result(None)

    def _fits(self, knobs: Knobs, size: int) -> bool:
        slot = not knobs.slots or self.running < knobs.slots
        return slot and (not knobs.kv_tokens or not self.running or self.held + size <= knobs.kv_tokens)

    def _take(self, size: int) -> None:
        self.running += 1
        self.held += size

    def gap(self, knobs: Knobs) -> float:
        """Seconds between two tokens of an answer."""
        return (knobs.itl_ms + knobs.itl_growth_ms * (self.running - 1)) / 1000

    async def read(self, tokens: int, speed: float) -> None:
        """Read a prompt, after those that are being read."""
        if speed:
            self.read_until = max(self.read_until, time.monotonic()) + tokens / speed
            await asyncio.sleep(self.read_until - time.monotonic())

    def observe(self, name: str, seconds: float) -> None:
        """Add a time to one of the histograms."""
        count, total = self.times[name]
        self.times[name] = count + 1, total + seconds

    def metrics(self) -> str:
        """The figures that routers and dashboards read, in Prometheus' text format."""
        label = f'{{engine="0",model_name="{self.models[0]}"}}'
        used = self.held / self.knobs.kv_tokens if self.knobs.kv_tokens else 0
        lines = []
        for name, value, what in (
            ("vllm:num_requests_running", self.running, "Number of requests in model execution batches."),
            ("vllm:num_requests_waiting", len(self.queue), "Number of requests waiting to be processed."),
            ("vllm:kv_cache_usage_perc", used, "KV-cache usage. 1 means 100 percent usage."),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name}{label} {float(value)}"]
        for name, value, what in (
            ("vllm:generation_tokens_total", self.tokens, "Number of generation tokens processed."),
            ("vllm:num_preemptions_total", 0, "Cumulative number of preemption from the engine."),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} counter", f"{name}{label} {float(value)}"]
        for name, (count, total) in self.times.items():
            histogram = f"vllm:{name}_seconds"
            lines += [f"# HELP {histogram} Histogram of times in seconds.", f"# TYPE {histogram} histogram"]
            lines.append(f'{histogram}_bucket{label[:-1]},le="+Inf"}} {float(count)}')
            lines += [f"{histogram}_count{label} {float(count)}", f"{histogram}_sum{label} {total}"]
        return "\n".join(lines) + "\n"
