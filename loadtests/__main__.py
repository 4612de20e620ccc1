"""`python -m loadtests`: prove the promises (run), measure everything (bench), and what each part costs."""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

from loadtests import bench, crosscheck, gate, report, results, slo, ways  # noqa: E402
from loadtests.settings import ROOT, SettingError  # noqa: E402
from loadtests.suites import SUITES  # noqa: E402

MISUSE = 64  # sysexits.h EX_USAGE
UNAVAILABLE = 69  # EX_UNAVAILABLE
CONFIG = 78  # EX_CONFIG
BUG = 70  # EX_SOFTWARE


def levels(text: str) -> list[int]:
    """`5` or `1,5,16`: numbers of users, one level after the other."""
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


class Parser(argparse.ArgumentParser):
    """Its own exit status for a wrong command line: argparse's 2 says here that there is no verdict."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how it is used."""
        self.print_usage(sys.stderr)
        self.exit(MISUSE, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="./run", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    suites = "; ".join(f"{name}: {suite.what}" for name, suite in SUITES.items())

    run = commands.add_parser(
        "run",
        prog="./run loadtest",
        help="put load on a running service and judge the SLOs",
        description="Puts load on a running service and holds what it measures against loadtests/slo.toml. "
        "Exit status: 0 all met, 1 one missed, 2 no verdict (too few requests, or the load generator "
        "was saturated itself).",
    )
    run.add_argument("--suite", choices=sorted(SUITES), default="mixed", help=suites)
    run.add_argument(
        "--users",
        type=levels,
        default=[1, 5],
        help="one level or several in turn (default 1,5; degradation needs 1)",
    )
    run.add_argument("--duration", type=positive, default=60, help="seconds at each level (default 60)")
    run.add_argument(
        "--patience",
        type=positive,
        default=3,
        help="go on for up to so many times the duration until a percentile can be judged (default 3)",
    )
    run.add_argument("--rate", type=positive, default=0, help="open loop: so many requests a second")
    run.add_argument("--think", type=float, default=1, help="multiply the pauses between requests (0: none)")
    run.add_argument("--seed", type=int, default=1, help="other prompts (default 1)")
    run.add_argument("--slo", type=Path, default=None, help="other objectives than loadtests/slo.toml")
    run.add_argument(
        "--report", type=Path, default=ROOT / "reports", help="folder of the reports (default reports)"
    )

    measure = commands.add_parser(
        "bench",
        prog="./run bench",
        help="measure everything and write a report",
        description="Starts what it needs, measures, and writes report.html, report.md and results.json to "
        "reports/<time>/.",
    )
    measure.add_argument("--short", action="store_true", help="minutes instead of a quarter hour")
    measure.add_argument("--compare", type=Path, metavar="OLD.json", help="say what became slower")
    measure.add_argument("--seed", type=int, default=1, help="other prompts (default 1)")
    measure.add_argument("--report", type=Path, default=ROOT / "reports", help="folder of the reports")

    again = commands.add_parser(
        "report", prog="./run bench report", help="render the report of a results.json again"
    )
    again.add_argument("results", type=Path)
    again.add_argument("--compare", type=Path, metavar="OLD.json")
    beside = commands.add_parser(
        "ways",
        help="direct, vllm-router, plain LiteLLM and the router side by side",
        description=ways.__doc__,
    )
    beside.add_argument("--rounds", type=int, default=3, help="more rounds, surer figures (default 3)")
    beside.add_argument("--engine", metavar="URL", help="a running engine instead of the mock")
    beside.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    commands.add_parser("crosscheck", help="measure the same load with `vllm bench serve` too")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "run":
            return gate.run(options)
        if options.command == "bench":
            return bench.run(options)
        if options.command == "ways":
            return ways.run(options)
        if options.command == "crosscheck":
            return crosscheck.run(options)
        old = results.read(options.compare) if options.compare else None
        report.write(options.results.parent, results.read(options.results), old)
        print(options.results.parent / "report.html")
        return 0
    except SettingError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return CONFIG
    except (results.ResultsError, slo.ObjectiveError) as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return MISUSE
    except ConnectionError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return UNAVAILABLE
    except KeyboardInterrupt:
        print("loadtests: interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return BUG  # Python's own status for this is 1, which here says that an objective was missed


if __name__ == "__main__":
    sys.exit(main())
