"""Writes docs/ide-setup.md from the tables.

`.envs/dev/bin/python -m services.stack.ide.docs > docs/ide-setup.md`
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from services.stack.environments import ROOT
from services.stack.ide import check
from services.stack.ide.tools import FEATURES, Facts, Tool, read_tools

# The service in the page's examples: on this machine, with the models of the GPU profile.
EXAMPLE = Facts(
    base="http://127.0.0.1:4000",
    key=None,
    coder="coder",
    general="general",
    windows={"coder": 65536, "general": 32768},
    prompts={"coder": 49152, "general": 24576},
    fim_model="qwen3-coder-30b-a3b-instruct-fp8",
    embedding="embedding",
    embedding_window=8192,
    embedding_size=1024,
)
SEEN = ("connects", "streams", "tools", "errors", "autocomplete")
HEAD = Path(__file__).with_name("page.md")


def page() -> str:
    """The content of docs/ide-setup.md."""
    tools = read_tools()
    return (
        HEAD.read_text()
        + "\n"
        + _seen(tools)
        + "".join(_section(tool) for tool in tools.values())
        + _parameters()
    )


def _seen(tools: dict[str, Tool]) -> str:
    rows = [
        "| tool | version | how | " + " | ".join(SEEN) + " |",
        "|---" * (3 + len(SEEN)) + "|",
    ]
    for tool in tools.values():
        how = tool.seen["how"]
        seen = set(tool.seen.get("features", ()))
        if how == "replayed":
            whats = {request.what.split()[0] for request in check.requests_of(tool.name, "coder", "coder")}
            seen = {"connects"} | ({"autocomplete"} & whats) | ({"tools"} if "agent" in whats else set())
        cells = ["yes" if feature in seen else "" for feature in SEEN]
        rows.append(f"| {tool.title} | {tool.seen.get('version', '')} | {how} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _section(tool: Tool) -> str:
    able = ", ".join(feature for feature in FEATURES if feature in tool.can)
    steps = "\n".join(f"{number}. {EXAMPLE.fill(step)}" for number, step in enumerate(tool.steps, 1))
    where = f"In `{tool.path}`:" if tool.path else ""
    reads = f"Reads the key from `{'` and `'.join(tool.variables)}`." if tool.variables else ""
    about = " ".join(text for text in (reads, where) if text)
    return (
        f"\n## {tool.title}\n\n`./run ide {tool.name}`: {able}.\n\n{steps}\n\n"
        + (f"{about}\n\n" if about else "")
        + f"```{tool.language}\n{EXAMPLE.fill(tool.config).rstrip()}\n```\n\nLimits: {tool.limits}\n"
    )


def _parameters() -> str:
    table = yaml.safe_load((ROOT / "config" / "parameters.yaml").read_text())
    rows = ["\n## Parameters that are left out\n"]
    rows += [
        "Clients send them and no engine here can use them. They are left out, and the response names them\n"
        "in `x-duoserve-ignored`. A null is as if it were not sent. Others are refused by name.\n"
    ]
    rows += ["| parameter | sent by | why it is left out |", "|---|---|---|"]
    rows += [
        f"| `{name}`{_apis(entry)} | {entry['sent_by']} | {entry['why']} |"
        for name, entry in table["dropped"].items()
    ]
    rows += [
        f"| `{name}` = {_values(entry)} | {entry['sent_by']} | {entry['why']}; not reported |"
        for name, entry in table["unset"].items()
    ]
    rows += [
        f"| `{name}` | anyone (engines on `{device}`) | {entry['why']} |"
        for device, entries in table["unable"].items()
        for name, entry in entries.items()
    ]
    rows += ["\n## Parameters that are refused\n", "| parameter | why, and what to do |", "|---|---|"]
    rows += [f"| `{name}`{_apis(entry)} | {entry['why']} |" for name, entry in table["refused"].items()]
    return "\n".join(rows) + "\n"


def _apis(entry: dict[str, Any]) -> str:
    return f" ({', '.join(entry['apis'])})" if "apis" in entry else ""


def _values(entry: dict[str, Any]) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in entry["values"])


if __name__ == "__main__":
    sys.stdout.write(page())
