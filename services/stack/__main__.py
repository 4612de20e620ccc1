"""Entry point of `./run TASK` and `pixi run TASK`."""

import argparse
import os
import signal
import sys

from services.stack.failure import Failure
from services.stack.tasks import TASKS


def main() -> int:
    """Run one task and return its exit status."""
    options = vars(_parse())
    task = TASKS[options.pop("task")]
    try:
        status = task.load()(**options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # a folder that is read-only, full, or another user's
        print(f"duoserve: {error.filename or task.name}: {error.strerror or error}", file=sys.stderr)
        return 1
    except Failure as failure:
        print(f"duoserve: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nduoserve: interrupted; run the same command again to continue.", file=sys.stderr)
        return 130


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run", description="Duoserve's tasks.")
    subparsers = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in TASKS.values():
        # A task that forwards its arguments leaves them to another program to parse, -h included.
        subparser = subparsers.add_parser(
            task.name, help=task.help, description=task.help, add_help=not task.forwards
        )
        if task.arguments:
            task.arguments(subparser)
    options, rest = parser.parse_known_args()
    if TASKS[options.task].forwards:
        options.arguments = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
