"""Entry point of `./run TASK`."""

import argparse
import sys

from services.stack import environments
from services.stack.failure import Failure


def main() -> int:
    """Run one task; returns the exit status."""
    parser = argparse.ArgumentParser(prog="./run")
    tasks = parser.add_subparsers(dest="task", required=True)
    setup = tasks.add_parser("setup")
    setup.add_argument("environment", nargs="*", default=list(environments.BY_NAME))
    lock = tasks.add_parser("lock")
    lock.add_argument("--upgrade", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.task == "setup":
            environments.ensure(*arguments.environment)
        else:
            environments.lock(arguments.upgrade)
    except Failure as failure:
        print(f"duoserve: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
