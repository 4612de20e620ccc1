"""`./run up` on a machine on which everything takes long."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from services.stack.commands import up
from services.stack.settings import Settings, load
from services.stack.supervision import health
from services.stack.supervision.supervisor import ServiceState, Supervisor

HOUR = 3600.0


class Slow:
    """A supervisor whose services start and are not ready for days."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked = 0

    def states(self) -> list[ServiceState]:
        self.asked += 1
        return [ServiceState(name, 1, 0, HOUR) for name in self.settings.services]


def test_it_waits_as_long_as_services_are_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(load(tmp_path))
    clock = itertools.count(0.0, HOUR)
    monkeypatch.setattr(
        up,
        "time",
        SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None, strftime=time.strftime),
    )
    monkeypatch.setattr(health, "probe", lambda *_: slow.asked > 100)
    up._wait_until_ready(cast(Supervisor, slow), 0.0)
    assert slow.asked == 101
