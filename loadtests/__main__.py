"""`python -m loadtests`: load tests against the promises (run), the benchmark, and comparisons."""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

from loadtests import bench, capacity, gate  # noqa: E402
from loadtests.experiments import beside, crosscheck, replay, side_by_side  # noqa: E402
from loadtests.judge import slo  # noqa: E402
from loadtests.report import page, results  # noqa: E402
from loadtests.settings import ROOT, SettingError  # noqa: E402
from loadtests.workload.sessions import Session, read_sessions  # noqa: E402
from loadtests.workload.suites import SUITES  # noqa: E402


def levels(text: str) -> list[int]:
    """Numbers of users, such as `5` or `1,5,16`."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes numbers of users such as 5 or 1,5, not {text!r}") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("takes at least one user")
    return sorted(set(numbers))


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number above 0, not {text!r}")
    return number


def add_sessions(command: argparse.ArgumentParser) -> None:
    """The option for sessions other than the recorded ones."""
    command.add_argument(
        "--sessions",
        type=trace,
        metavar="FILE",
        help="sessions for agent-replay, in the format of loadtests/workload/sessions.py or Mooncake's "
        "(default: those recorded of coding agents)",
    )


def trace(path: str) -> list[Session]:
    """The sessions of a file."""
    try:
        found = read_sessions(Path(path))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not found:
        raise argparse.ArgumentTypeError(f"{path} has no session")
    return found


class Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE after a wrong command line: argparse's 2 means `no verdict` here."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="python -m loadtests", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        prog="./run loadtest",
        help="put load on a running service and judge the SLOs",
        description="Puts load on a running service and judges the objectives of loadtests/slo.toml. Exit "
        "status: 0 all met, 1 one missed, 2 no verdict (too few requests, or the load generator itself was "
        "saturated).",
    )
    suites = "; ".join(f"{name}: {suite.description}" for name, suite in SUITES.items())
    run.add_argument("--suite", choices=sorted(SUITES), default="mixed", help=suites)
    run.add_argument(
        "--users",
        type=levels,
        help="one level, or several in turn as in 1,5 (default: the levels that the objectives need)",
    )
    run.add_argument(
        "--duration",
        type=positive,
        help=f"seconds at each level (default 60; with --find-capacity {capacity.SECONDS:.0f}, each time)",
    )
    run.add_argument(
        "--patience",
        type=positive,
        default=3,
        help="continue for up to this many times the duration until a percentile can be judged (default 3)",
    )
    run.add_argument("--rate", type=positive, default=0, help="open loop: N requests per second", metavar="N")
    run.add_argument(
        "--think", type=float, default=1, help="multiplies the pauses between requests (0: no pauses)"
    )
    run.add_argument(
        "--find-capacity",
        action="store_true",
        help="search for the most users, or with --rate requests per second, at which every objective is "
        "met; the search begins at --users or --rate, and the exit status says whether so much is kept",
    )
    run.add_argument(
        "--budget",
        type=positive,
        default=1800,
        metavar="SECONDS",
        help="with --find-capacity: stop after this time at the latest (default 1800)",
    )
    add_sessions(run)
    run.add_argument("--seed", type=int, default=1, help="another seed sends other prompts (default 1)")
    run.add_argument("--slo", type=Path, default=slo.DEFAULT, help="objectives other than loadtests/slo.toml")
    run.add_argument(
        "--report", type=Path, default=ROOT / "reports", help="folder for reports (default reports)"
    )
    run.set_defaults(carry_out=load_test, usage_error=run.error)

    measure = commands.add_parser(
        "bench",
        prog="./run bench",
        help="measure everything and write a report",
        description="Starts what it needs, measures, and writes report.html, report.md and results.json to "
        "reports/<time>/.",
    )
    measure.add_argument("--short", action="store_true", help="a few minutes instead of a quarter of an hour")
    measure.add_argument(
        "--random-weights",
        action="store_true",
        help="measure before the models are downloaded: with random weights of their shapes",
    )
    measure.add_argument("--profile", help="a folder under config/engines (default: PROFILE)")
    measure.add_argument("--compare", type=Path, metavar="OLD.json", help="show what became slower")
    measure.add_argument("--seed", type=int, default=1, help="another seed sends other prompts (default 1)")
    measure.add_argument("--report", type=Path, default=ROOT / "reports", help="folder for reports")
    measure.set_defaults(carry_out=bench.run)

    again = commands.add_parser("report", help="render the report of a results.json again")
    again.add_argument("results", type=Path)
    again.add_argument("--compare", type=Path, metavar="OLD.json", help="show what became slower")
    again.set_defaults(carry_out=report)

    relays = commands.add_parser(
        "side-by-side",
        help="direct, vllm-router, plain LiteLLM and the router, side by side",
        description=side_by_side.__doc__,
    )
    relays.add_argument(
        "--rounds", type=int, default=3, help="more rounds give more certain figures (default 3)"
    )
    relays.add_argument("--engine", metavar="URL", help="a running engine instead of the mock")
    relays.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    relays.set_defaults(carry_out=side_by_side.run)

    typing = commands.add_parser(
        "beside",
        help="completions alone, and beside an agent whose long prompt the same engine reads",
        description=beside.__doc__,
    )
    typing.add_argument("--count", type=int, default=40, help="completions of each kind (default 40)")
    typing.add_argument("--seed", type=int, default=1, help="another seed sends other prompts (default 1)")
    typing.set_defaults(carry_out=beside.run)

    sessions = commands.add_parser(
        "replay",
        help="recorded sessions of coding agents, directly to an engine and through the router",
        description=replay.__doc__,
    )
    sessions.add_argument("--rounds", type=int, default=3, help="how often each session is sent (default 3)")
    sessions.add_argument("--seed", type=int, default=1, help="another seed sends other texts (default 1)")
    sessions.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    add_sessions(sessions)
    sessions.set_defaults(carry_out=replay.run)

    cross = commands.add_parser(
        "crosscheck",
        help="measure the same load with `vllm bench serve` as well",
        description=crosscheck.__doc__,
    )
    cross.set_defaults(carry_out=crosscheck.run)
    return top


def load_test(options: argparse.Namespace) -> int:
    """Carry out `./run loadtest`. Raises what gate.run and capacity.run raise."""
    if not options.find_capacity:
        options.duration = options.duration or 60.0
        return gate.run(options)
    if options.suite in capacity.WITHOUT:
        options.usage_error(f"--find-capacity has no meaning for suite {options.suite}")
    if options.users and len(options.users) > 1:
        options.usage_error("--find-capacity takes one number of --users, where the search begins")
    options.duration = options.duration or capacity.SECONDS
    return capacity.run(options)


def report(options: argparse.Namespace) -> int:
    """Render a report again. Raises ResultsError."""
    old = results.read(options.compare) if options.compare else None
    folder = options.results.parent
    page.write(folder, results.read(options.results), old)
    print(folder / "report.html")
    return os.EX_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.carry_out(options)
        return status
    except SettingError as error:
        problem, status = str(error), os.EX_CONFIG
    except (results.ResultsError, slo.ObjectiveError) as error:
        problem, status = str(error), os.EX_USAGE
    except ConnectionError as error:
        problem, status = str(error), os.EX_UNAVAILABLE
    except KeyboardInterrupt:
        problem, status = "interrupted", 130
    except Exception:
        traceback.print_exc()
        return os.EX_SOFTWARE  # Python's default is 1, which here means that an objective was missed
    print(f"loadtests: {problem}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
