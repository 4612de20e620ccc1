"""`./run ide`: what each tool can do here, its configuration, and whether its requests work."""

import argparse
import difflib
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from services.ide import check, merge
from services.ide.tools import FEATURES, Facts, Failure, Tool, facts_of, read_tools

HOW = {"run": "run", "replayed": "requests replayed", "documented": "not run"}


def main() -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        tools = read_tools()
        if arguments.tool is None:
            _list(tools)
            return 0
        tool = _find(arguments.tool, tools)
        facts = facts_of(arguments.url, os.environ)
        if arguments.test:
            return _test(tool, facts)
        if arguments.write:
            _write(tool, facts)
        else:
            _print(tool, facts)
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has seen enough
        return 0
    except Failure as failure:
        print(f"duoserve: {failure}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run ide", description="Connect a tool to this service.")
    parser.add_argument(
        "tool", nargs="?", metavar="TOOL", help="name of the tool; without it, all are listed"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="merge the configuration into the tool's own file")
    what.add_argument("--test", action="store_true", help="send the requests that the tool sends")
    parser.add_argument("--url", help="address of a service elsewhere; its key is read from DUOSERVE_API_KEY")
    return parser


def _find(name: str, tools: dict[str, Tool]) -> Tool:
    if name in tools:
        return tools[name]
    close = difflib.get_close_matches(name.lower(), tools, 1)
    raise Failure(f"There is no tool {name}; " + (f"did you mean {close[0]}?" if close else "see ./run ide."))


def _list(tools: dict[str, Tool]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("tool", *FEATURES, "tested, 2026-11-22"):
        table.add_column(column)
    for tool in tools.values():
        can = ["yes" if feature in tool.can else "" for feature in FEATURES]
        table.add_row(tool.name, *can, f"{tool.seen.get('version', '')} {HOW[tool.seen['how']]}".strip())
    Console().print(table)
    print("\n./run ide TOOL prints its configuration, --write merges it, --test sends its requests.")


def _print(tool: Tool, facts: Facts) -> None:
    """The configuration on the standard output, everything else beside it."""
    print(f"{tool.title}: {tool.path or 'put this where it belongs'}\n", file=sys.stderr)
    text = tool.fill(facts).rstrip("\n")
    if sys.stdout.isatty():
        Console().print(Syntax(text, tool.language, background_color="default"))
    else:
        print(text)
    print(f"\n{_key_hint(tool, facts)}", file=sys.stderr)
    print(f"Not here: {tool.limits}", file=sys.stderr)


def _key_hint(tool: Tool, facts: Facts) -> str:
    where = "the key of that service"
    if facts.key and not os.environ.get("DUOSERVE_API_KEY"):
        where = f'"$(sed -n s/^LITELLM_MASTER_KEY=//p {_env_file()})"'
    if tool.variables:
        return "\n".join(f"export {variable}={where}" for variable in tool.variables)
    if tool.holds_key:
        return "The key is part of it: keep the file to yourself." if facts.key else f"Put in {where}."
    return f"The key: {where}"


def _env_file() -> Path:
    return Path(os.environ.get("DUOSERVE_HOME") or Path.cwd()) / ".env"


def _write(tool: Tool, facts: Facts) -> None:
    if tool.path is None or tool.format is None:
        raise Failure(
            f"{tool.title} has no file to merge into; ./run ide {tool.name} prints what to put where."
        )
    if tool.holds_key and not facts.key:
        raise Failure("The key is not known; set DUOSERVE_API_KEY to the key of that service.")
    path = Path(tool.path).expanduser()
    result = merge.write(path, tool.fill(facts), tool.format, tool.holds_key, tool.keep)
    if result is False:
        print(f"{path} says so already.")
    else:
        print(f"Wrote {path}" + (f"; what was there is in {result}" if result else ""))
    print(_key_hint(tool, facts))


def _test(tool: Tool, facts: Facts) -> int:
    failed = 0
    for outcome in check.run(tool, facts):
        failed += not outcome.works
        mark = "works" if outcome.works else "FAILS"
        request = outcome.request
        print(f"{mark}  {request.what:14} {request.path}  {outcome.said}, {outcome.seconds:.2f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
