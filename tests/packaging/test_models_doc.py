"""The configurations in docs/models.md, as the router and Kubernetes read them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from router.litellm.config import read_config
from router.models import read_models
from router.settings import read_settings
from services.stack.environments import ROOT

BLOCKS = [
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "models.md").read_text(), re.M | re.S)
]
KEY = "k7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
DEFAULT = yaml.safe_load((ROOT / "config" / "litellm.yaml").read_text())


def _whole(block: dict[str, Any]) -> dict[str, Any]:
    """The shipped configuration with what a block adds to it."""
    added = [each for each in block.get("model_list", []) if each not in DEFAULT["model_list"]]
    entries = {each["model_name"]: each for each in (*DEFAULT["model_list"], *added)}
    return {**DEFAULT, **block, "model_list": list(entries.values())}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "-".join(block))
def test_an_example_is_a_configuration(
    block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "litellm.yaml"
    path.write_text(yaml.safe_dump(_whole(block)))
    named = set(re.findall(r"os\.environ/(\w+)", path.read_text()))
    example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
    keys = {name: KEY for name in {"LITELLM_MASTER_KEY", *named} if not example.get(name)}
    for name, value in (example | keys).items():
        monkeypatch.setenv(name, value)
    models = read_models(read_settings(), read_config(path), [])
    assert models.keys() == {each["model_name"] for each in _whole(block)["model_list"]}
    remote = {name: model.provider for name, model in models.items() if model.remote}
    assert remote in ({}, {"big": "anthropic", "lab": "openai"})


def test_the_example_of_remote_models_is_what_kubernetes_gives_the_router(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize, is not installed")
    (block,) = (block for block in BLOCKS if "fallbacks" in block.get("router_settings", {}))
    for name in ("deploy", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / ".env.example", tmp_path)
    text = yaml.safe_dump(_whole(block))
    (tmp_path / "config" / "litellm.yaml").write_text(text)
    base = str(tmp_path / "deploy" / "kubernetes" / "base")
    command = ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", base]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found = [
        manifest["data"]["litellm.yaml"]
        for manifest in yaml.safe_load_all(answer.stdout)
        if manifest["kind"] == "ConfigMap" and "litellm.yaml" in manifest["data"]
    ]
    assert found == [text]
