"""The load tests against the real service."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.stack import Stack


def test_a_short_load_on_the_real_service(stack: Stack, tmp_path: Path) -> None:
    done = stack.run(
        *("loadtest", "--suite", "mixed", "--users", "2", "--duration", "10", "--patience", "1"),
        *("--think", "0", "--report", str(tmp_path)),
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr  # ten seconds are no verdict, or a clear miss
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "results.json").read_text())
    (stage,) = data["stages"]
    assert {s["outcome"] for s in stage["samples"]} == {"ok"}
    for sample in stage["samples"]:
        assert 0 < sample["ttft"] <= sample["first_content"] <= sample["total"]
        assert sample["queue_wait"] is not None
        # Events may hold no text or part of a character, so there are never more of them than tokens.
        assert 0 < sample["events"] <= sample["completion_tokens"]
    assert "vllm (coder)" in data["versions"]
    assert stack.key not in (folder / "results.json").read_text() + done.stdout + done.stderr


def test_replayed_sessions_of_agents_find_their_prompts_in_the_cache(stack: Stack, tmp_path: Path) -> None:
    slo = tmp_path / "slo.toml"  # times take longer to judge
    slo.write_text('users = 1\n[[objective]]\nname = "cached"\nmetric = "found_again"\nat_least = 0.95\n')
    reports = tmp_path / "reports"
    done = stack.run(
        *("loadtest", "--suite", "agent-replay", "--users", "1", "--duration", "15", "--patience", "40"),
        *("--think", "0", "--slo", str(slo), "--report", str(reports)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = reports.iterdir()
    data = json.loads((folder / "results.json").read_text())
    (stage,) = data["stages"]
    assert {s["outcome"] for s in stage["samples"]} == {"ok"}
    assert not any(s["truncated_messages"] for s in stage["samples"])
    assert [verdict["verdict"] for verdict in data["verdicts"]] == ["met"]


@pytest.mark.slow
def test_an_independent_tool_measures_the_same(stack: Stack) -> None:
    """`vllm bench serve` in the same run: p50 and p95 within 10 %, token counts exactly."""
    python = ROOT / ".envs" / "loadtests" / "bin" / "python"
    variables = {
        "LITELLM_MASTER_KEY": stack.key,
        "PROFILE": "cpu",
        "LITELLM_CONFIG": "config/litellm.yaml",
        "ROUTER_URL": stack.url,
        "CODER_URL": stack.engines["coder"],
        "GENERAL_URL": stack.engines["general"],
    }
    done = subprocess.run(
        [python, "-m", "loadtests", "crosscheck"],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
