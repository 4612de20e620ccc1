"""The workflows for forks are what GitHub would accept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = shutil.which("actionlint", path=str(Path(sys.executable).parent)) or shutil.which("actionlint")


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    if ACTIONLINT is None:
        pytest.skip("actionlint is not installed")
    return subprocess.run([ACTIONLINT, "-no-color", str(path)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_valid(path: Path) -> None:
    done = lint(path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_fault_would_be_found(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace("hashFiles(", "hashFile(").replace("runs-on:", "runs_on:"))
    assert lint(broken).returncode != 0
