"""Background tasks: none of them ends without a word, and each goes on after an error."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_PAUSE_SECONDS = 1.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run each of `works` until the context is left; one that raises is logged and started again."""
    tasks = [asyncio.create_task(_keep_up(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_up(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
            return
        except Exception:
            _log.exception("a background task failed; it starts again")
            await asyncio.sleep(_PAUSE_SECONDS)
