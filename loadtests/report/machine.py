"""The hardware, versions and commit that were measured, so that figures can be compared."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from loadtests.measure.connection import get_json
from loadtests.settings import ROOT, Target, engine_config


def hardware() -> dict[str, Any]:
    """The machine that generated the load; unless the URL says otherwise, the service runs on it too."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def versions(target: Target) -> dict[str, str]:
    """Versions of Locust, LiteLLM and, where they can be reached, of the engines."""
    found = {"locust": metadata.version("locust")}
    lock = ROOT / "router" / "requirements.lock"
    for line in lock.read_text().splitlines() if lock.exists() else ():
        if line.startswith("litellm=="):
            found["litellm"] = line.split("==")[1].split()[0]
    for alias, urls in target.engines.items():
        try:
            found[f"vllm ({alias})"] = str(get_json(f"{urls[0]}/version")["version"])
        except (OSError, KeyError, TypeError):
            continue  # for example an engine on another machine's loopback interface
    return found


def models(target: Target) -> dict[str, str]:
    """The model of each alias, from config/engines."""
    return {
        alias: str(engine_config(target.profile, alias).get("model", "unknown")) for alias in target.engines
    }


def commit() -> str:
    """The commit that is checked out, with `+` when files differ from it; empty outside git."""
    try:
        head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
        changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GITHUB_SHA", "")[:12]
    return head + ("+" if changed else "")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    try:
        return _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines()
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return []
