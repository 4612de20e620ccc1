"""Whether a running service must be restarted, because it hangs or holds too much memory.

The router and the chat app must answer their health check. An engine's check says little: it answers
although the process with the model hangs. Whether an engine should make tokens only the router knows, so an
engine hangs when the router calls it down and its processes are there. While the router does not answer,
nothing is known of the engines; its own guard looks after it.
"""

import json
import time
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from services.stack.supervision.health import answers, read

CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """What a service may do without being restarted.

    Attributes:
        health_url: answers while the service is well; None for an engine.
        ready_url: the router's /ready, for an engine.
        engine: its place there: alias, and number from 1.
        silence: seconds for which it may be unwell, once it has been well.
        growth: how many times the memory that it held when it was well for the first time it may hold.
    """

    health_url: str | None = None
    ready_url: str | None = None
    engine: tuple[str, int] | None = None
    silence: float = 60.0
    growth: float | None = None


class Watch:
    """Looks after the service whose first process is `process`."""

    def __init__(self, process: psutil.Process, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._well: float | None = None  # when it was seen to be well for the last time
        self._planned = 0

    def fault(self) -> str | None:
        """Why the service must be restarted, after one more look at it; None if it need not."""
        limits, well, now = self._limits, self._is_well(), time.monotonic()
        if well and not self._planned:
            self._planned = self._memory()
        if well or (well is None and self._well is not None):
            self._well = now
        elif self._well is not None and now - self._well > limits.silence:
            return f"it has hung for {limits.silence:.0f} s"
        if limits.growth and self._planned and (held := self._memory()) > limits.growth * self._planned:
            return (
                f"it holds {held / 1e9:.1f} GB of memory, more than {limits.growth:g} times the "
                f"{self._planned / 1e9:.1f} GB that it held when it was ready (ENGINE_GROWTH)"
            )
        return None

    def _is_well(self) -> bool | None:
        """None if that is not known."""
        if self._limits.health_url:
            return answers(self._limits.health_url)
        if self._limits.ready_url and self._limits.engine:
            return _is_ready(self._limits.ready_url, *self._limits.engine)
        return None

    def _memory(self) -> int:
        """Bytes that its processes hold, without the files that they have mapped."""
        total = 0
        for process in (self._process, *_children(self._process)):
            try:
                memory = process.memory_info()
            except psutil.Error:
                continue  # it has just ended
            total += memory.rss - memory.shared
        return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_ready(url: str, alias: str, number: int) -> bool | None:
    """Whether the router calls the engine ready; None if it does not answer."""
    try:
        ready: Mapping[str, Any] = json.loads(read(url))
        return bool(ready["models"][alias]["engines"][number - 1]["state"] == "ready")
    except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError):
        return None
