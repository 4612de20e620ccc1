"""`./run loadtest` as a process, against a mock engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

# The speed at which a mock engine reads, for a search for its capacity.
TOKENS_PER_SECOND = 20_000.0
FIND_CAPACITY = ("--find-capacity", "--suite", "completion", "--think", "0", "--duration", "3")


def settings(url: str) -> dict[str, str]:
    variables = {"LITELLM_MASTER_KEY": "sk-mock", "PROFILE": "blackwell-96gb", "ROUTER_URL": url}
    variables |= {"LITELLM_CONFIG": "config/litellm.yaml", "CODER_URL": url, "GENERAL_URL": url}
    return os.environ | variables


def judged(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """What was judged; a machine too busy to measure on gives no verdict, and so no test."""
    skip_if_saturated(done.stdout)
    return done


def skip_if_saturated(stdout: str) -> None:
    if "saturated" in stdout:
        pytest.skip("the load generator was saturated: this machine is too busy to measure on")


def loadtest(url: str, report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests", "run", "--report", str(report), *options]
    environment = settings(url)
    return judged(
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    )


def capacity_in(reports: Path) -> dict[str, Any]:
    """The capacity that the only report in this folder tells."""
    (folder,) = reports.iterdir()
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["capacity"]
    return found
