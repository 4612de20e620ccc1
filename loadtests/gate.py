"""`./run loadtest`: puts load on a running service, judges every objective, and writes a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from loadtests.judge import slo
from loadtests.judge.verdict import exit_status
from loadtests.measure.connection import get_json
from loadtests.measure.load import Progress, run_stage, warm_up
from loadtests.measure.stage import Stage
from loadtests.measure.users import LoadTest
from loadtests.report import page, results, tables
from loadtests.report.results import Run
from loadtests.settings import Target
from loadtests.workload.sessions import Session
from loadtests.workload.suites import SUITES, RequestGenerator, Workload


def prepare(
    target: Target,
    suite: str,
    *,
    seed: int = 1,
    think: float = 1,
    rate: float = 0,
    sessions: Sequence[Session] | None = None,
    any_text: bool = False,
) -> tuple[LoadTest, list[str]]:
    """A load test against a running service, and notes for readers of its figures. `sessions` are what
    `agent-replay` replays, if not the recorded ones.

    With `any_text`, the text of answers is not checked.

    Raises ConnectionError, with a message for the user, when the service is not there.
    """
    try:
        served = get_json(f"{target.url}/v1/models", target.key)["data"]
    except OSError as error:
        raise ConnectionError(
            f"no service at {target.url} ({error}): start it with ./run up --detach"
        ) from error
    aliases = tuple(
        str(model["id"])
        for model in served
        if model["id"] == model.get("root", model["id"])
        and model.get("mode", "chat") == "chat"
        and not model.get("remote")  # nobody pays for a load test
    )[:2]
    if not aliases:
        raise ConnectionError(f"{target.url} serves no model with an engine to chat with")
    window = next(int(model.get("max_model_len") or 0) for model in served if model["id"] == aliases[0])
    workload = Workload(suite, aliases, seed, think, window=window, any_text=any_text)
    if sessions:
        workload.sessions = sessions
    test = LoadTest(target.url, target.key, workload, rate)
    if suite == "soak":
        test.watched = target.servers()
    notes = []
    scaled = [session.name for session in workload.sessions if session.scale(window) < 1]
    if scaled and "replay" in SUITES[suite].weights:
        notes.append(
            f"{len(scaled)} of {len(workload.sessions)} sessions are longer than the context of {aliases[0]} "
            f"({window:,} tokens), and were shortened."
        )
    if "completion" in SUITES[suite].weights:
        # A model without fill-in-the-middle answers 400, or continues the prefix alone and says so.
        probe = test.connect().measure(RequestGenerator(workload, -1).fill_in_the_middle())
        workload.suffix = probe.status == 200
        if not workload.suffix or probe.suffix_ignored:
            how = (
                "ignored the suffix of completions" if workload.suffix else "got completions without a suffix"
            )
            notes.append(f"The model for code does not fill in the middle: it {how}.")
    if len(aliases) == 1:
        notes.append(f"Only {aliases[0]} is served: all requests went there.")
    return test, notes


def begin(target: Target, options: argparse.Namespace) -> tuple[LoadTest, Run, dict[str, str]]:
    """Prepare the suite of `options` and warm up; returns what puts load on, the run, and the answers without
    load.

    Raises SettingError, ConnectionError.
    """
    test, notes = prepare(
        target,
        options.suite,
        seed=options.seed,
        think=options.think,
        rate=options.rate,
        sessions=options.sessions,
    )
    run = Run.begin(target, options.suite, options.seed)
    run.notes += notes
    print(*notes, "Warming up, and asking for the answers without load", sep="\n", file=sys.stderr)
    return test, run, warm_up(test)


def climb(
    test: LoadTest,
    objectives: slo.Objectives,
    levels: Sequence[int],
    seconds: float,
    *,
    longest: float = 0,
    progress: Progress | None = None,
) -> list[Stage]:
    """One stage for each number of users, extended until it can be judged, to `longest` seconds at most."""
    suite = test.workload.suite
    return [
        run_stage(
            test,
            users,
            seconds,
            enough=partial(slo.enough, objectives, suite, users),
            longest=max(seconds, longest),
            ramp=0 if suite == "burst" else min(3.0, seconds / 4),
            progress=progress,
        )
        for users in levels
    ]


def show(run: Run) -> None:
    """Print the levels and the verdicts."""
    print(
        tables.aligned(tables.levels(run.stages)), tables.aligned(tables.verdicts(run.verdicts)), sep="\n\n"
    )


def run(options: argparse.Namespace) -> int:
    """Carry out `./run loadtest`; returns the exit status.

    Raises SettingError, ObjectiveError, ConnectionError.
    """
    target = Target.from_environment()
    objectives = slo.load(target.profile, options.slo)
    test, run, answers = begin(target, options)
    run.stages = climb(
        test,
        objectives,
        options.users or objectives.levels(),
        options.duration,
        longest=options.duration * options.patience,
        progress=Progress(),
    )
    run.finish(objectives, answers)
    folder = results.folder(options.report, run.started)
    page.write(folder, run)
    show(run)
    print(f"\nReport: {folder / 'report.html'}")
    return exit_status(run.verdicts)
