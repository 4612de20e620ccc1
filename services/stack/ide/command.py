"""`./run ide`: lists the tools, prints or merges a tool's configuration, and tests its requests."""

import difflib
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from services.stack.failure import Failure
from services.stack.ide import check, merge
from services.stack.ide.tools import FEATURES, Facts, Tool, facts_of, read_tools
from services.stack.settings import Settings, load

HOW = {"run": "run", "replayed": "requests replayed", "documented": "not run"}


def ide(tool: str | None, write: bool, test: bool, url: str | None) -> int:
    """List all tools, or print, merge (`write`) or test the configuration of one; returns the exit status.

    Args:
        tool: name of the tool.
        write: merge the configuration into the tool's own file.
        test: send the requests that the tool sends.
        url: address of the service, instead of the one that the settings describe.

    Raises:
        Failure: the tool or the key is not known, the file cannot be written, or nothing answers.
    """
    try:
        if tool is None:
            _list(read_tools())
            return 0
        chosen = _find(tool, read_tools())
        settings = load()
        facts = facts_of(url, settings)
        if test:
            return _test(chosen, facts)
        if write:
            _write(chosen, facts, settings)
        else:
            _print(chosen, facts, settings)
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has closed the pipe
        return 0


def _find(name: str, tools: dict[str, Tool]) -> Tool:
    if name in tools:
        return tools[name]
    close = difflib.get_close_matches(name.lower(), tools, 1)
    raise Failure(f"there is no tool {name}; " + (f"did you mean {close[0]}?" if close else "see ./run ide."))


def _list(tools: dict[str, Tool]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("tool", *FEATURES, "tested, 2026-11-22"):
        table.add_column(column)
    for tool in tools.values():
        can = ["yes" if feature in tool.can else "" for feature in FEATURES]
        table.add_row(tool.name, *can, f"{tool.seen.get('version', '')} {HOW[tool.seen['how']]}".strip())
    Console().print(table)
    print("\n./run ide TOOL prints its configuration, --write merges it, --test sends its requests.")


def _print(tool: Tool, facts: Facts, settings: Settings) -> None:
    """The configuration goes to the standard output, everything else to the standard error."""
    print(f"{tool.title}: {tool.path or 'put this where the tool expects it'}\n", file=sys.stderr)
    text = facts.fill(tool.config).rstrip("\n")
    if sys.stdout.isatty():
        Console().print(Syntax(text, tool.language, background_color="default"))
    else:
        print(text)
    print(f"\n{_key_hint(tool, facts, settings)}", file=sys.stderr)
    print(f"Not supported: {tool.limits}", file=sys.stderr)


def _key_hint(tool: Tool, facts: Facts, settings: Settings) -> str:
    where = "the key of that service"
    if facts.key and not os.environ.get("DUOSERVE_API_KEY"):
        where = f'"$(sed -n s/^LITELLM_MASTER_KEY=//p {settings.env_file})"'
    if tool.variables:
        return "\n".join(f"export {variable}={where}" for variable in tool.variables)
    if tool.holds_key:
        return "It contains the key: keep the file private." if facts.key else f"Fill in {where}."
    return f"The key: {where}"


def _write(tool: Tool, facts: Facts, settings: Settings) -> None:
    if tool.path is None or tool.format is None:
        raise Failure(
            f"{tool.title} has no file to merge into; ./run ide {tool.name} prints what to put where."
        )
    if tool.holds_key and not facts.key:
        raise Failure("the key is not known; set DUOSERVE_API_KEY to the key of that service.")
    path = Path(tool.path).expanduser()
    result = merge.write(path, facts.fill(tool.config), tool.format, tool.holds_key, tool.keep)
    if result is False:
        print(f"{path} has this configuration already.")
    else:
        print(f"Wrote {path}" + (f"; the previous content is in {result}" if result else ""))
    print(_key_hint(tool, facts, settings))


def _test(tool: Tool, facts: Facts) -> int:
    failed = 0
    for outcome in check.run(tool, facts):
        failed += not outcome.works
        mark = "works" if outcome.works else "FAILS"
        request = outcome.request
        print(f"{mark}  {request.what:14} {request.path}  {outcome.detail}, {outcome.seconds:.2f} s")
    return 1 if failed else 0
