"""The suites in Locust's own hands: its web page, its headless mode, its workers.

    .envs/loadtests/bin/locust --config loadtests/locust.conf    # then 127.0.0.1:8089
    .envs/loadtests/bin/locust --config loadtests/locust.conf --headless --processes 2

At the end the objectives of slo.toml are judged as `./run loadtest` judges them, over all workers' requests;
the exit status says whether they were met.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadtests import gate, slo
from loadtests.client import Sample
from loadtests.load import Watch, warm_up
from loadtests.settings import ROOT, SettingError, service
from loadtests.stage import Health, Stage
from loadtests.suites import SUITES, LoadTest
from loadtests.users import Developer

__all__ = ["Developer"]


class Collector:
    """Gathers the samples of this process and, on a master, of its workers."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.samples: list[Sample] = []
        self.health: list[Health] = []
        self.answers: dict[str, str] = {}
        self.began = 0.0
        self.watch: Watch | None = None


collector = Collector()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The options of `./run loadtest` that Locust has no word for; its web page shows them too."""
    parser.add_argument("--suite", choices=sorted(SUITES), default="mixed", help="what the developers do")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: so many requests a second")
    parser.add_argument("--think", type=float, default=1.0, help="multiply the pauses between requests")
    parser.add_argument("--seed", type=int, default=1, help="other prompts")


@events.init.add_listener
def configure(environment: Any, **_: Any) -> None:
    """Read the settings, so that a missing one is said before anything runs."""
    home = Path(os.environ.get("DUOSERVE_HOME") or ROOT)
    for path in (home / ".env", ROOT / ".env.example"):
        load_dotenv(path)
    try:
        environment.host = service().url
        slo.load(service().profile)
    except SettingError as error:
        raise SystemExit(f"loadtests: {error}") from error


@events.test_start.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Find out what is served; the process that judges also asks for the answers without load."""
    options, target = environment.parsed_options, service()
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
        collector.watch = Watch()
        collector.watch.start()
    collector.began = time.monotonic()


@events.test_stop.add_listener
def stop_watching(environment: Any, **_: Any) -> None:
    """Keep how busy this generator was."""
    if collector.watch:
        collector.health.append(collector.watch.stop())
        collector.watch = None


@events.report_to_master.add_listener
def send_samples(client_id: str, data: dict[str, Any]) -> None:
    """A worker's report takes along what it has measured since the last one."""
    data["samples"] = [sample.as_json() for sample in collector.samples]
    data["health"] = [vars(health) for health in collector.health]
    collector.samples.clear()
    collector.health.clear()


@events.worker_report.add_listener
def receive_samples(client_id: str, data: dict[str, Any]) -> None:
    """The master gathers them."""
    collector.samples += [Sample(**sample) for sample in data.get("samples", [])]
    collector.health += [Health(**health) for health in data.get("health", [])]


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Say which objectives were met; the exit status is that of `./run loadtest`."""
    test: LoadTest | None = getattr(environment, "loadtest", None)
    if test is None or isinstance(environment.runner, WorkerRunner):
        return
    # A generator of several processes is saturated when its busiest one is.
    worst = max(collector.health, key=lambda health: (health.saturated, health.cpu), default=Health())
    stage = Stage(test.users, test.rate, time.monotonic() - collector.began, collector.samples, worst)
    verdicts = slo.judge([stage], test.suite, slo.load(service().profile), collector.answers)
    print(f"\n{slo.table(verdicts)}")
    environment.process_exit_code = slo.exit_status(verdicts)
