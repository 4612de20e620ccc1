"""`./run usage`: what people and tools used, from the request log, as a table, CSV or JSON."""

import argparse
import contextlib
import csv
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from router.console import lines, printable
from router.errors import BadSettings
from router.settings import read_settings
from router.usage import VIEWS, report, start_of

_LESS_URGENT = 19
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHADES = " .:-=+*#%@"
# A spreadsheet takes text that begins with one of these for a formula (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = tuple("=+-@\t\r")


def main() -> int:
    """Print a report; returns the exit status."""
    options = _parser().parse_args()
    with contextlib.suppress(OSError):
        os.nice(_LESS_URGENT)  # beside the engines
    offset = timedelta(minutes=_local_offset() if options.utc_offset is None else options.utc_offset)
    try:
        folder = options.folder or read_settings().log_folder
        since = start_of(options.since, offset, datetime.now(UTC))
    except BadSettings as error:
        print(f"duoserve: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except ValueError as error:
        print(f"duoserve: --since {error}", file=sys.stderr)
        return 2
    found = report(folder, since, offset, options.key)
    try:
        if options.as_json:
            print(json.dumps(found))
        elif options.as_csv:
            _write_csv(options.by, found[options.by])
        else:
            _print_table(options.by, found)
        _warn(found)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _local_offset() -> int:
    """Minutes by which this machine's time zone is ahead of UTC."""
    return time.localtime().tm_gmtoff // 60


def _print_table(view: str, found: Mapping[str, Any]) -> None:
    heading = (
        view,
        "requests",
        "tokens in",
        "cached",
        "tokens out",
        "wait",
        "longest",
        "refused",
        "failed",
        "left",
    )
    told = [_cells(printable(row["name"] or "(unknown)"), row) for row in found[view]]
    table = lines([heading, *told, _cells("total", found["total"])], right=range(1, len(heading)))
    print("\n".join(table))
    if reasons := found["total"]["reasons"]:
        print("not served: " + ", ".join(f"{printable(name)} {count}" for name, count in reasons.items()))
    if view != "tool" and (tools := found["total"]["tools"]):
        print("tools: " + ", ".join(f"{printable(name)} {count}" for name, count in tools.items()))
    most = max(map(max, found["hours"]))
    if most:
        print(f"\nrequests by hour (@: {most})\n     0     6     12    18")
        for day, hours in zip(_DAYS, found["hours"], strict=True):
            shades = (_SHADES[-(-count * (len(_SHADES) - 1) // most)] for count in hours)
            print(f"{day}  {''.join(shades)}".rstrip())


def _cells(name: str, row: Mapping[str, Any]) -> Sequence[str]:
    share, wait = row["cached_share"], row["mean_wait_ms"]
    return (
        name,
        f"{row['requests']:,}",
        f"{row['prompt_tokens']:,}",
        "-" if share is None else f"{share:.0%}",
        f"{row['completion_tokens']:,}",
        "-" if wait is None else f"{wait / 1000:.2f} s",
        f"{row['longest_wait_ms'] / 1000:.1f} s",
        *(f"{row[name]:,}" for name in ("refused", "failed", "left")),
    )


def _write_csv(view: str, rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout)
    counts = [name for name in (rows[0] if rows else ()) if name not in ("name", "reasons", "tools")]
    writer.writerow([view, *counts, "reasons", "tools"])
    for row in rows:
        name = row["name"] or ""
        writer.writerow(
            [
                f"'{name}" if name.startswith(_FORMULA) else name,
                *(row[count] for count in counts),
                *(
                    " ".join(f"{name}:{count}" for name, count in row[each].items())
                    for each in ("reasons", "tools")
                ),
            ]
        )


def _warn(found: Mapping[str, Any]) -> None:
    if found["log_begins"]:
        print(
            f"The log begins at {found['log_begins'][:19]} UTC; LOG_DAYS says how long it is kept.",
            file=sys.stderr,
        )
    if found["damaged_lines"]:
        print(f"{found['damaged_lines']} lines of the log are damaged and were left out.", file=sys.stderr)
    if found["unreadable_files"]:
        names = ", ".join(map(printable, found["unreadable_files"]))
        print(f"Not all could be read of {names}; take these files away, or unpack them.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run usage",
        description="What people and tools used, from the request log. It has no prompts or answers.",
    )
    parser.add_argument(
        "--since",
        default="7d",
        metavar="TIME",
        help="days (7d), hours (24h) or a date (default: %(default)s)",
    )
    parser.add_argument("--by", choices=VIEWS, default="client", help="what a row is (default: %(default)s)")
    parser.add_argument("--key", metavar="NAME", help="only requests of this key")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", dest="as_json", help="print everything as JSON")
    form.add_argument("--csv", action="store_true", dest="as_csv", help="print the rows as CSV")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--utc-offset", type=int, metavar="MINUTES", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
