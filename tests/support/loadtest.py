"""`./run loadtest` as a process, against a mock engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT


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
