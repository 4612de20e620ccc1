"""`./run bench`: starts what it needs, measures everything, writes one report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from loadtests import compare, gate, own_service, relay, report, results, slo
from loadtests.client import get_json
from loadtests.load import Progress, warm_up
from loadtests.settings import Service, SettingError, service


@dataclass(frozen=True)
class Extent:
    """How much is measured. Rounds: how often so many streams are compared direct and through the router."""

    users: tuple[int, ...]
    seconds: float
    longest: float
    rounds: dict[int, int]
    warm_start: bool


FULL = Extent((1, 2, 5, 8, 16), 40, 160, {1: 12, 8: 5}, True)
SHORT = Extent((1, 5), 20, 45, {1: 5, 8: 2}, False)
SUITE = "mixed"

P = ParamSpec("P")
T = TypeVar("T")


def run(options: argparse.Namespace) -> int:
    """Carry out `./run bench`; returns 1 when a promise is missed or something became slower.

    Raises ResultsError for a file to compare with that cannot be used, ConnectionError when the service does
    not start or answer.
    """
    old = results.read(options.compare) if options.compare else None
    extent = SHORT if options.short else FULL
    started, progress = datetime.now(UTC), Progress()
    folder = results.folder(options.report, started)
    with _service(extent, folder) as (target, starts, notes):
        objectives = slo.load(target.profile)
        test, more_notes = gate.prepare(target, SUITE, seed=options.seed, think=0)
        notes += more_notes
        _say("Warming up")
        answers = warm_up(test)
        _say(f"Load at {', '.join(str(n) for n in extent.users)} users, without pauses")
        stages = gate.climb(
            test, objectives, list(extent.users), extent.seconds, longest=extent.longest, progress=progress
        )
        _say("The router against the engine, side by side")
        alias = test.model_for("completion")
        beside = _part(notes, relay.overhead, target, alias, extent.rounds, options.seed, progress)
    _say("Relay capacity")
    capacity = _part(notes, relay.capacity, progress)
    verdicts = slo.judge(stages, SUITE, objectives, answers)
    data = results.collect(
        target,
        suite=SUITE,
        seed=options.seed,
        stages=stages,
        promises=slo.judge(stages, SUITE, slo.promises(), answers),
        verdicts=verdicts,
        notes=notes,
        started=started,
        more={"starts": starts, "overhead": beside, "relay": capacity},
    )
    report.write(folder, data, old)
    print(report.summary(stages), "", slo.table(verdicts), "", sep="\n")
    slower = compare.regressions(compare.changes(old, data)) if old else []
    for change in slower:
        print(f"SLOWER  {change.name}: {change.before:.0f} -> {change.after:.0f} ms, ratio {change.ratio}")
    print(f"Report: {folder / 'report.html'}")
    return max(slo.exit_status(verdicts), 1) if slower else slo.exit_status(verdicts)


def _part(notes: list[str], measure: Callable[P, list[T]], *args: P.args, **kwargs: P.kwargs) -> list[T]:
    """What `measure` gives; nothing, and a note, when it fails: the rest of the figures is not lost."""
    try:
        return measure(*args, **kwargs)
    except OSError as error:
        _say(f"Not measured: {error}")
        notes.append(f"{measure.__name__} was not measured: {error}")
        return []


@contextmanager
def _service(extent: Extent, folder: Path) -> Iterator[tuple[Service, list[dict[str, Any]], list[str]]]:
    """The running service, or one of the benchmark's own with the times of its starts."""
    try:
        running = service()
        get_json(f"{running.url}/v1/models", running.key)
    except (SettingError, OSError):
        pass
    else:
        _say(f"Measuring the service at {running.url}")
        yield running, [], ["The service ran already, so its start was not measured."]
        return
    with own_service.own_home(folder / "logs") as home:
        _say("No service runs here: starting one of the benchmark's own")
        starts = [{"name": "first start", "seconds": own_service.up(home)}]
        if extent.warm_start:
            _say(f"Ready after {starts[0]['seconds']:.0f} s; starting again, warm")
            own_service.down(home)
            starts.append({"name": "again, warm", "seconds": own_service.up(home)})
        _say(f"Ready after {starts[-1]['seconds']:.0f} s")
        yield own_service.described(home), starts, []


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)
