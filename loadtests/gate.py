"""`./run loadtest`: load on a running service, a verdict for each objective, a report."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from functools import partial

from loadtests import report, results, slo
from loadtests.client import get_json
from loadtests.load import Progress, run_stage, warm_up
from loadtests.settings import Service, service
from loadtests.stage import Stage
from loadtests.suites import SUITES, LoadTest, Writer


def prepare(
    service: Service, suite: str, *, seed: int = 1, think: float = 1, rate: float = 0
) -> tuple[LoadTest, list[str]]:
    """A load test against a running service, and what a reader of its figures should know.

    Raises ConnectionError, in words for the user, when the service is not there.
    """
    try:
        served = get_json(f"{service.url}/v1/models", service.key)["data"]
    except OSError as error:
        raise ConnectionError(
            f"no service at {service.url} ({error}): start it with ./run up --detach"
        ) from error
    names = {str(model["id"]) for model in served}
    aliases = tuple(alias for alias in ("coder", "general") if alias in names)
    if not aliases:
        raise ConnectionError(
            f"{service.url} serves neither coder nor general, but {', '.join(sorted(names))}"
        )
    test = LoadTest(service.url, service.key, suite, seed=seed, think=think, rate=rate, aliases=aliases)
    if suite == "soak":
        test.watched = service.servers()
    notes = []
    if "completion" in SUITES[suite].weights:
        # Models without fill-in-the-middle are answered 400, or go on from the prefix alone and say so.
        probe = test.connect().measure(Writer(test, -1).fill_in_the_middle())
        test.suffix = probe.status == 200
        if not test.suffix or probe.suffix_ignored:
            how = "ignored the suffix of completions" if test.suffix else "got completions without a suffix"
            notes.append(f"The coder's model does not fill in the middle: it {how}.")
    if len(aliases) == 1:
        notes.append(f"Only {aliases[0]} is served: all requests went there.")
    return test, notes


def run(options: argparse.Namespace) -> int:
    """Carry out `./run loadtest`; returns the exit status.

    Raises SettingError, ObjectiveError, ConnectionError.
    """
    target = service()
    objectives = slo.load(target.profile, options.slo or slo.DEFAULT)
    started = datetime.now(UTC)
    test, notes = prepare(target, options.suite, seed=options.seed, think=options.think, rate=options.rate)
    progress = Progress()
    for note in notes:
        print(note, file=sys.stderr)
    print("Warming up, and asking for the answers without load", file=sys.stderr)
    answers = warm_up(test)
    stages = climb(
        test,
        objectives,
        options.users,
        options.duration,
        longest=options.duration * options.patience,
        progress=progress,
    )
    verdicts = slo.judge(stages, options.suite, objectives, answers)
    folder = results.folder(options.report, started)
    data = results.collect(
        target,
        suite=options.suite,
        seed=options.seed,
        stages=stages,
        promises=slo.judge(stages, options.suite, slo.promises(), answers),
        verdicts=verdicts,
        notes=notes,
        started=started,
    )
    report.write(folder, data)
    print(report.summary(stages))
    print()
    print(slo.table(verdicts))
    print(f"\nReport: {folder / 'report.html'}")
    return slo.exit_status(verdicts)


def climb(
    test: LoadTest,
    objectives: slo.Objectives,
    levels: list[int],
    seconds: float,
    *,
    longest: float = 0,
    progress: Progress | None = None,
) -> list[Stage]:
    """One stage for each number of users, each going on until it can be judged or `longest` is over."""
    burst = test.suite == "burst"
    return [
        run_stage(
            test,
            users,
            seconds,
            enough=partial(slo.enough, objectives, test.suite, users),
            longest=max(seconds, longest),
            ramp=0 if burst else min(3.0, seconds / 4),
            progress=progress,
        )
        for users in levels
    ]
