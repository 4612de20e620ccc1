import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 300.0  # seconds; only a test that fails waits as long, so a slow machine gets its time


def wait_for(condition: Callable[..., T], what: str, seconds: float = PATIENCE) -> T:
    """The first true value of `condition`; a connection that fails meanwhile is not yet true.

    Fails the test with `what` when it does not become true.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except (OSError, httpx.TransportError):
            pass
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.01)


async def until(condition: Callable[..., object], what: str) -> None:
    """`wait_for`, while the test's other tasks go on."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.005)
    except TimeoutError as error:
        raise AssertionError(f"not within {PATIENCE:.0f} s: {what}") from error
