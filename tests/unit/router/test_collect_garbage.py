"""What only cycles hold is freed, however few objects that are."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from router.litellm import proxy
from tests.support.waiting import until


class Answer:
    """One that holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def _python_collects_nothing() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("_python_collects_nothing")
async def test_what_only_cycles_hold_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_COLLECT_SECONDS", 0.01)
    collecting = asyncio.create_task(proxy.collect_garbage())
    await asyncio.sleep(0)
    unread = weakref.ref(Answer())
    assert unread() is not None
    await until(lambda: unread() is None, "it is freed")
    collecting.cancel()
