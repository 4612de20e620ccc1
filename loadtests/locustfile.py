"""The suites for Locust's own command: its web page, headless mode and workers.

    .envs/loadtests/bin/locust --config loadtests/locust.conf    # then 127.0.0.1:8089
    .envs/loadtests/bin/locust --config loadtests/locust.conf --headless --processes 2

At the end the objectives of slo.toml are judged as by `./run loadtest`, over the requests of all workers; the
exit status says whether they were met.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import gevent
from dotenv import load_dotenv
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadtests import gate
from loadtests.judge import slo
from loadtests.judge.verdict import exit_status
from loadtests.measure.load import GeneratorWatch, warm_up
from loadtests.measure.sample import Sample
from loadtests.measure.stage import GeneratorHealth, Stage
from loadtests.measure.users import Developer, LoadTest
from loadtests.report import tables
from loadtests.settings import ROOT, SettingError, Target
from loadtests.workload.suites import SUITES

__all__ = ["Developer"]


class Collector:
    """Collects the samples of this process and, on a master, those of its workers."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.health: list[GeneratorHealth] = []
        self.answers: dict[str, str] = {}
        self.began = 0.0
        self.watch: GeneratorWatch | None = None


collector = Collector()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The options of `./run loadtest` that Locust does not have; its web page shows them too."""
    # As many users as the objectives are judged at.
    users = slo.promises().users
    parser.set_defaults(num_users=users, spawn_rate=users)
    parser.add_argument("--suite", choices=sorted(SUITES), default="mixed", help="what users do")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="open loop: requests per second, over all users"
    )
    parser.add_argument("--think", type=float, default=1.0, help="multiplies the pauses between requests")
    parser.add_argument("--seed", type=int, default=1, help="another seed sends other prompts")


@events.init.add_listener
def configure(environment: Any, **_: Any) -> None:
    """Read the settings, so that a missing one is reported before anything runs."""
    home = Path(os.environ.get("DUOSERVE_HOME") or ROOT)
    for path in (home / ".env", ROOT / ".env.example"):
        load_dotenv(path)
    try:
        target = Target.from_environment()
        environment.host = target.url
        slo.load(target.profile)
    except SettingError as error:
        raise SystemExit(f"loadtests: {error}") from error
    # Imports took seconds without a turn of the event loop, which would be deducted from the run time.
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Find out what is served; the process that judges also asks for the answers without load."""
    options, target = environment.parsed_options, Target.from_environment()
    test, notes = gate.prepare(
        target, options.suite, seed=options.seed, think=options.think, rate=options.rate
    )
    environment.loadtest = test
    test.users = options.num_users or environment.runner.target_user_count or 1
    index = max(0, getattr(environment.runner, "worker_index", 0))
    test.serial = itertools.count(index * 10_000)
    if not isinstance(environment.runner, WorkerRunner):
        print(*notes, sep="\n")
        collector.samples, collector.health = [], []
        collector.answers = warm_up(test)
    if not isinstance(environment.runner, MasterRunner):
        test.on_sample = collector.samples.append
        collector.watch = GeneratorWatch()
        collector.watch.start()
    collector.began = time.monotonic()


@events.test_stop.add_listener
def stop_watching(environment: Any, **_: Any) -> None:
    """Record how busy this load generator was."""
    if collector.watch:
        collector.health.append(collector.watch.stop())
        collector.watch = None


@events.report_to_master.add_listener
def send_samples(client_id: str, data: dict[str, Any]) -> None:
    """Add what a worker measured since its last report."""
    data["samples"] = [sample.as_json() for sample in collector.samples]
    data["health"] = [vars(health) for health in collector.health]
    collector.samples.clear()
    collector.health.clear()


@events.worker_report.add_listener
def receive_samples(client_id: str, data: dict[str, Any]) -> None:
    """Collect what the workers measured."""
    collector.samples += [Sample(**sample) for sample in data.get("samples", [])]
    collector.health += [GeneratorHealth(**health) for health in data.get("health", [])]


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Print the verdicts; the exit status is that of `./run loadtest`."""
    test: LoadTest | None = getattr(environment, "loadtest", None)
    if test is None or isinstance(environment.runner, WorkerRunner):
        return
    # A load generator of several processes is saturated when the busiest one is.
    worst = max(
        collector.health, key=lambda health: (health.saturated, health.cpu), default=GeneratorHealth()
    )
    stage = Stage(test.users, test.rate, time.monotonic() - collector.began, collector.samples, worst)
    objectives = slo.load(Target.from_environment().profile)
    verdicts = slo.judge([stage], test.workload.suite, objectives, collector.answers)
    print(f"\n{tables.aligned(tables.verdicts(verdicts))}")
    environment.process_exit_code = exit_status(verdicts)
