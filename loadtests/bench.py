"""`./run bench`: starts what it needs, measures everything, and writes one report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from loadtests import capacity, gate
from loadtests.experiments import relay, spawn
from loadtests.judge import slo
from loadtests.judge.capacity import Capacity
from loadtests.judge.verdict import exit_status, outlook
from loadtests.measure.connection import get_json
from loadtests.measure.load import Progress, warm_up
from loadtests.measure.stage import Stage
from loadtests.measure.users import LoadTest
from loadtests.report import page, results
from loadtests.report.changes import changes, regressions
from loadtests.report.results import Run
from loadtests.settings import SettingError, Target


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    more_users: set[int]  # levels beside those that the objectives need
    seconds: float
    longest: float
    rounds: dict[int, int]  # by number of streams: how often direct and router are compared
    warm_start: bool
    capacity: float  # seconds for the search


FULL = Extent({2, 8, 16}, 40, 240, {1: 12, 8: 5}, True, 240)
SHORT = Extent(set(), 15, 30, {1: 3, 8: 2}, False, 30)
SUITE = "mixed"
RANDOM_WEIGHTS = (
    "The weights are random: speed and memory are those of the models; the text is noise and was not "
    "checked. Answers run to their full length and no draft is right, so real weights are faster."
)

WITHOUT_POWER = (
    "Energy is not available on this machine: no GPU, and no /sys/class/powercap that this user can read."
)

P = ParamSpec("P")
T = TypeVar("T")


def run(options: argparse.Namespace) -> int:
    """Carry out `./run bench`; returns 1 when an objective is missed or something became slower.

    Raises ResultsError for a file to compare with that cannot be used, ConnectionError when the service does
    not start or answer.
    """
    old = results.read(options.compare) if options.compare else None
    extent = SHORT if options.short else FULL
    random = options.random_weights
    started, progress = results.now(), Progress()
    folder = results.folder(options.report, started)
    with _service(extent, folder / "logs", options) as (target, starts, notes):
        objectives = slo.load(target.profile)
        if random:
            objectives, notes = objectives.without_text(), [*notes, RANDOM_WEIGHTS]
        test, more_notes = gate.prepare(target, SUITE, seed=options.seed, think=0, any_text=random)
        test.power = urlsplit(target.url).hostname in ("127.0.0.1", "localhost", "::1")
        run = Run.begin(target, SUITE, options.seed)
        run.started, run.starts, run.notes = started, starts, notes + more_notes
        _log("Warming up")
        answers = warm_up(test)
        levels = sorted({*objectives.levels(), *extent.more_users})
        _log(f"Load at {', '.join(str(n) for n in levels)} users, without pauses")
        run.stages = gate.climb(
            test, objectives, levels, extent.seconds, longest=extent.longest, progress=progress
        )
        if all(stage.watts is None for stage in run.stages):
            run.notes.append(WITHOUT_POWER)
        _log("Capacity, with the pauses of developers")
        alone = next((stage for stage in run.stages if stage.users == 1), None)
        run.capacity = _capacity(test, objectives, answers, extent, alone, target, progress)
        if not random:
            _log("The router and the engine, side by side")
            alias = test.workload.model_for("completion")
            run.overhead = _part(run, relay.overhead, target, alias, extent.rounds, options.seed, progress)
    if not random:
        _log("Relay capacity")
        run.relay = _part(run, relay.capacity, progress)
    run.finish(objectives, answers)
    page.write(folder, run, old)
    gate.show(run)
    print("", capacity.summary(run.capacity), "", sep="\n")
    slower = regressions(changes(old, run)) if old else []
    for change in slower:
        print(f"SLOWER  {change.name}: {change.before:.0f} -> {change.after:.0f} ms, ratio {change.ratio}")
    if random:
        print(RANDOM_WEIGHTS, outlook(run.promises, run.profile), sep="\n")
    print(f"Report: {folder / 'report.html'}")
    return max(exit_status(run.verdicts), 1) if slower else exit_status(run.verdicts)


def _capacity(
    test: LoadTest,
    objectives: slo.Objectives,
    answers: dict[str, str],
    extent: Extent,
    alone: Stage | None,
    target: Target,
    progress: Progress,
) -> Capacity:
    """How many users the service carries. They make pauses, unlike those at the levels above."""
    team = replace(
        test, workload=replace(test.workload, think=1.0), engines=capacity.engines(target), power=False
    )
    # Several measurements fit, though shorter ones than `./run loadtest --find-capacity` makes.
    seconds = min(capacity.SECONDS, extent.capacity / 4)
    longest = max(seconds, extent.capacity / 8)
    found, _ = capacity.find(
        team,
        objectives,
        answers,
        budget=extent.capacity,
        seconds=seconds,
        longest=longest,
        alone=alone,
        progress=progress,
    )
    return found


def _part(run: Run, measure: Callable[P, list[T]], *args: P.args, **kwargs: P.kwargs) -> list[T]:
    """The result of `measure`; when it fails, [] and a note, so that the other figures are not lost."""
    try:
        return measure(*args, **kwargs)
    except OSError as error:
        _log(f"Not measured: {error}")
        run.notes.append(f"{measure.__name__} was not measured: {error}")
        return []


@contextmanager
def _service(
    extent: Extent, logs: Path, options: argparse.Namespace
) -> Iterator[tuple[Target, list[dict[str, Any]], list[str]]]:
    """The running service, or a temporary one and the times of its starts; and notes.

    Raises ConnectionError where the options ask for a temporary one, and the running one is in its way.
    """
    try:
        running = Target.from_environment()
        get_json(f"{running.url}/v1/models", running.key)
    except (SettingError, OSError):
        pass
    else:
        if options.random_weights or options.profile not in (None, running.profile):
            raise ConnectionError("the service is running, and takes the memory: stop it with ./run down")
        _log(f"Measuring the service at {running.url}")
        yield running, [], ["The service was already running, so its start was not measured."]
        return
    settings = {"LOAD_FORMAT": "dummy"} if options.random_weights else {}
    if options.profile:
        settings["PROFILE"] = options.profile
    with spawn.own_home(logs, **settings) as home:
        _log("No service is running here: starting a temporary one")
        starts = [{"name": "first start", "seconds": spawn.up(home)}]
        if extent.warm_start:
            _log(f"Ready after {starts[0]['seconds']:.0f} s; starting again, warm")
            spawn.down(home)
            starts.append({"name": "again, warm", "seconds": spawn.up(home)})
        _log(f"Ready after {starts[-1]['seconds']:.0f} s")
        yield spawn.target_of(home), starts, []


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)
