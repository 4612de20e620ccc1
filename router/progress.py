"""Engines that hang: they have requests, and make no token.

vLLM's /health answers as long as its server does, whatever the process that runs the model is doing. So while
an engine has requests, its metrics are read, too: if its token counters and the use of its KV cache, which
grows while a long prompt is read, stay as they are for `stall` seconds, the engine hangs. It also does if it
does not answer at all for so long, for example because it was stopped.

An engine that hangs is down, and its requests end. It is ready again when it has made one token, or has been
restarted: its guard does that when the router has called it down for a while.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp

from router.background import background
from router.models import Mode, Model, Replica
from router.paths import COMPLETIONS, EMBEDDINGS, RERANK
from router.readiness import Readiness
from router.replicas import Replicas

# An engine whose steps are slow gets the time of this many: with 0.5 s between tokens 50 s.
_STEPS = 100
_CHECKS = 10  # in the time after which an engine hangs
_TIMEOUT_SECONDS = 10.0
_MOVING = re.compile(r"^vllm:(?:prompt_tokens_total|generation_tokens_total|kv_cache_usage_perc)\{.*", re.M)
_STEP = re.compile(r"^vllm:inter_token_latency_seconds_(sum|count)\{[^}]*\} (\S+)", re.M)
# The least that an engine can be asked, by what its model is for.
_TOKEN = (COMPLETIONS, {"prompt": "a", "max_tokens": 1})
_LEAST: dict[Mode, tuple[str, dict[str, Any]]] = {
    "chat": _TOKEN,
    "completion": _TOKEN,
    "embedding": (EMBEDDINGS, {"input": "a"}),
    "rerank": (RERANK, {"query": "a", "documents": ["a"]}),
}
_log = logging.getLogger(__name__)


class Progress:
    """Watches all engines while it is entered; `stall` is in seconds."""

    def __init__(
        self, models: Mapping[str, Model], readiness: Readiness, replicas: Replicas, stall: float
    ) -> None:
        self._models = models
        self._replicas_of_all = [replica for model in models.values() for replica in model.replicas]
        self._readiness = readiness
        self._replicas = replicas
        self._stall = stall

    async def __aenter__(self) -> "Progress":
        timeout = aiohttp.ClientTimeout(total=min(_TIMEOUT_SECONDS, self._stall))
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._watching = background(*(partial(self._watch, replica) for replica in self._replicas_of_all))
        await self._watching.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._watching.__aexit__(None, None, None)
        await self._session.close()

    async def _watch(self, replica: Replica) -> None:
        figures, moved = "", time.monotonic()
        while True:
            await asyncio.sleep(self._stall / _CHECKS)
            if replica in self._readiness.hung:
                await self._ask_for_a_token(replica)
                moved = time.monotonic()
                continue
            if not self._replicas.running[replica]:
                moved = time.monotonic()
                continue
            try:
                latest = await self._metrics(replica)
            except (aiohttp.ClientConnectorError, aiohttp.ClientResponseError):
                moved = time.monotonic()  # it died, or does not tell
                continue
            except (aiohttp.ClientError, TimeoutError):
                latest = figures
            patience = max(self._stall, _STEPS * _step_seconds(latest))
            if (now := _moving(latest)) != _moving(figures):
                figures, moved = latest, time.monotonic()
            elif time.monotonic() - moved > patience:
                _log.error("engine %d of %s hangs: %s", replica.number, replica.alias, now or "no metrics")
                self._readiness.hang(replica, f"the engine has made no token for {patience:.0f} s")
                self._replicas.abandon(replica)

    async def _metrics(self, replica: Replica) -> str:
        async with self._session.get(f"{replica.url}/metrics", raise_for_status=True) as response:
            return await response.text()

    async def _ask_for_a_token(self, replica: Replica) -> None:
        path, body = _LEAST[self._models[replica.alias].mode]
        body = {"model": replica.served, **body}
        try:
            async with self._session.post(replica.url + path, json=body, raise_for_status=True):
                pass
        except aiohttp.ClientConnectorError:
            pass  # it ended, and will be ready when it has loaded
        except (aiohttp.ClientError, TimeoutError):
            return
        _log.warning("engine %d of %s no longer hangs", replica.number, replica.alias)
        self._readiness.hung.pop(replica, None)


def _moving(metrics: str) -> list[str]:
    """The lines of an engine's metrics that change with every step."""
    return _MOVING.findall(metrics)


def _step_seconds(metrics: str) -> float:
    """The mean time between two tokens, as the engine measured it; 0 if it has made none."""
    total = {"sum": 0.0, "count": 0.0}
    for kind, value in _STEP.findall(metrics):
        total[kind] += float(value)
    return total["sum"] / total["count"] if total["count"] else 0.0
