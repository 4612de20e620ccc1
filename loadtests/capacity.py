"""`./run loadtest --find-capacity`: how many users the service carries within its promises."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from loadtests import gate
from loadtests.judge import slo
from loadtests.judge.capacity import Capacity
from loadtests.judge.search import Search, rates, seek, users
from loadtests.judge.slo import Objectives
from loadtests.judge.verdict import Verdict
from loadtests.measure.load import Progress
from loadtests.measure.stage import Stage
from loadtests.measure.users import LoadTest
from loadtests.report import page, results, tables
from loadtests.settings import Target
from loadtests.workload.suites import SUITES

SECONDS, PATIENCE = 20.0, 3.0  # of one measurement, and how many times as long it may take
WITHOUT = ("burst", "soak")  # suites that are about refusals and about hours


def find(
    test: LoadTest,
    objectives: Objectives,
    answers: dict[str, str],
    *,
    budget: float,
    seconds: float = SECONDS,
    longest: float = SECONDS * PATIENCE,
    alone: Stage | None = None,
    progress: Progress | None = None,
) -> tuple[Capacity, list[Stage]]:
    """Search for the highest load at which every objective is kept; returns it and the stages measured.

    The load is in users, from `objectives.users` on; with `test.rate`, in requests per second from there on.
    One measurement takes `seconds`, up to `longest` until it can be judged, and all together take not much
    more than `budget`. `alone` is one user's stage, for objectives that compare with it; when missing, it is
    measured, for up to a quarter of `budget` if need be.
    """
    suite, open_loop = test.workload.suite, bool(test.rate)
    unit, start = ("requests per second", test.rate) if open_loop else ("users", float(objectives.users))
    ends = time.monotonic() + budget
    if alone is None and _compares(objectives, suite):
        # With too few answers of it, nothing could be compared in the whole search.
        alone = _alone(test, objectives, seconds, max(longest, budget / 4), progress)

    def at(load: float) -> Objectives:
        return objectives if open_loop else replace(objectives, users=int(load))

    def measure(load: float, left: float) -> Stage:
        test.rate = load if open_loop else 0.0
        levels = [at(load).users]
        (stage,) = gate.climb(test, at(load), levels, seconds, longest=min(longest, left), progress=progress)
        return stage

    def judge(load: float, stage: Stage) -> list[tuple[Verdict, float]]:
        return slo.chances([*([alone] if alone else []), stage], suite, at(load), answers)

    search = Search(rates(start) if open_loop else users(), start)
    found, stages = seek(
        search, unit, measure, judge, ends=ends, seconds=seconds, say=progress.line if progress else None
    )
    return found, [*([alone] if alone else []), *stages]


def _compares(objectives: Objectives, suite: str) -> bool:
    """Whether an objective of the suite compares with fewer users, in requests that the suite sends."""
    sent = {*SUITES[suite].weights, *(["canary"] if SUITES[suite].canary_every else [])}
    return any(each.levels() and sent & set(each.kinds or sent) for each in objectives.of(suite))


def _alone(
    test: LoadTest, objectives: Objectives, seconds: float, longest: float, progress: Progress | None
) -> Stage:
    """One user, without pauses: alone, nobody waits for them."""
    quick = replace(test, rate=0.0, workload=replace(test.workload, think=0.0))
    (stage,) = gate.climb(quick, objectives, [1], seconds, longest=longest, progress=progress)
    return stage


def summary(found: Capacity) -> str:
    """The result in a few lines, for people."""
    lines = [f"Capacity: {found}"]
    if found.breaks:
        lines.append(f"What breaks first, at {found.breaks.load:g} {found.unit}: {found.breaks}")
    if found.stopped:
        lines.append(f"Stopped before the result was certain: {found.stopped}")
    return "\n".join(lines)


def engines(target: Target) -> dict[str, str]:
    """The URLs of the engines, by name; one that has several names once."""
    names = {url: name for name, url in reversed(target.servers().items()) if name != "router"}
    return {name: url for url, name in reversed(names.items())}


def run(options: argparse.Namespace) -> int:
    """Carry out `./run loadtest --find-capacity`; returns the exit status.

    Raises SettingError, ObjectiveError, ConnectionError.
    """
    target = Target.from_environment()
    objectives = slo.load(target.profile, options.slo)
    if options.users:
        objectives = replace(objectives, users=options.users[0])
    test, run, answers = gate.begin(target, options)
    test.engines = engines(target)
    found, run.stages = find(
        test,
        objectives,
        answers,
        budget=options.budget,
        seconds=options.duration,
        longest=options.duration * options.patience,
        progress=Progress(),
    )
    run.capacity = found
    if not found.levels:
        run.notes.append(summary(found))
    # The objectives are shown at the capacity, or at the nearest level below that was measured.
    loads = [level.load for level in found.levels]
    shown = max((load for load in loads if load <= found.value), default=min(loads, default=0.0))
    stages = [stage for stage in run.stages if (stage.rate or stage.users) == shown or stage is run.stages[0]]
    users_shown = objectives.users if options.rate else int(shown)
    run.finish(replace(objectives, users=users_shown), answers, stages)
    folder = results.folder(options.report, run.started)
    page.write(folder, run)
    print(tables.aligned(tables.capacity(found)), summary(found), sep="\n\n")
    print(f"\nReport: {folder / 'report.html'}")
    return found.exit_status
