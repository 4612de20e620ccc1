import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from json5 import loads as json5_loads

from services.stack.failure import Failure
from services.stack.ide import merge
from services.stack.ide.merge import merged
from tests.unit.ide.test_tools import FACTS, TOOLS

ZED = FACTS.fill(TOOLS["zed"].config)
CODEX = FACTS.fill(TOOLS["codex"].config)
COMMENTED = """// mine
{
  /* colours */ "theme": "dark", // night
  "edit_predictions": {"provider": "zed", "mode": "subtle"},
  "language_models": {
    "ollama": {"api_url": "http://localhost:11434"}, // at home
    "openai_compatible": {
      "Duoserve": {"api_url": "old", "available_models": [{"name": "own"}, {"name": "coder", "top": 1}]}
    }
  } // last
  // the end
}
"""


def test_json_keeps_comments_and_everything_of_ones_own() -> None:
    after = merged(COMMENTED, ZED, "json")
    for comment in ("// mine", "/* colours */", "// night", "// at home", "// last", "// the end"):
        assert comment in after
    settings = json5_loads(after)
    assert settings["theme"] == "dark"
    assert settings["language_models"]["ollama"] == {"api_url": "http://localhost:11434"}
    assert settings["edit_predictions"]["mode"] == "subtle"
    assert settings["edit_predictions"]["provider"] == "open_ai_compatible_api"
    models = settings["language_models"]["openai_compatible"]["Duoserve"]["available_models"]
    assert [model["name"] for model in models] == ["own", "coder", "general"]
    assert models[1]["max_tokens"] == 6144


@pytest.mark.parametrize(
    "text", ["{}", "{ }", '{"a": 1}', '{"a": 1,}', '{"a": [1, 2,],\n}', '{\n  "a": "}" // x\n}\n', "{/* */}"]
)
def test_json_of_any_form_stays_json(text: str) -> None:
    after = json5_loads(merged(text, '{"b": {"c": [{"name": "x"}]}}', "json"))
    assert after == json5_loads(text) | {"b": {"c": [{"name": "x"}]}}


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS.values() if tool.format])
def test_merging_twice_changes_nothing(name: str) -> None:
    tool = TOOLS[name]
    config, form = FACTS.fill(tool.config), tool.format or ""
    empty = {"toml": "# none"}.get(form, "[]" if config.lstrip()[0] in "[-" else "{}")
    once = merged(empty, config, form, tool.keep)
    assert merged(once, config, form, tool.keep) == once


def test_toml_keeps_comments_and_other_providers() -> None:
    own = '# mine\nmodel = "x" # best\napproval_policy = "never"\n\n[model_providers.other]\nname = "O"\n'
    after = merged(own, CODEX, "toml")
    assert "# mine" in after and 'approval_policy = "never"' in after
    assert "[model_providers.other]" in after and "[model_providers.duoserve]" in after
    assert 'model = "coder"' in after or 'model="coder"' in after


def test_yaml_keeps_comments_names_and_other_models() -> None:
    tool = TOOLS["continue"]
    own = "# mine\nname: My assistant\nmodels:\n  # the first\n  - name: GPT\n    provider: openai\n"
    after = merged(own, FACTS.fill(tool.config), "yaml", tool.keep)
    assert "# mine" in after and "# the first" in after
    settings = yaml.safe_load(after)
    assert settings["name"] == "My assistant"
    assert [model["name"] for model in settings["models"]] == [
        "GPT",
        "Duoserve coder",
        "Duoserve autocomplete",
    ]


def test_a_file_is_written_with_a_copy_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(COMMENTED)
    backup = merge.write(path, ZED, "json", secret=False)
    assert isinstance(backup, Path) and backup.read_text() == COMMENTED
    assert "open_ai_compatible_api" in path.read_text()
    assert merge.write(path, ZED, "json", secret=False) is False
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_file_with_the_key_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    assert merge.write(path, FACTS.fill(TOOLS["continue"].config), "yaml", secret=True) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.json", tmp_path / "settings.json"
    real.write_text("{}")
    link.symlink_to(real)
    merge.write(link, ZED, "json", secret=False)
    assert link.is_symlink() and json.loads(real.read_text())["edit_predictions"]


@pytest.mark.parametrize(
    ("text", "config", "form"),
    [("{", ZED, "json"), ("[1]", ZED, "json"), ("a = ", CODEX, "toml"), ("a: [", "a: 1", "yaml")],
)
def test_a_file_that_is_not_understood_is_left_alone(
    tmp_path: Path, text: str, config: str, form: str
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(Failure, match="nothing was written"):
        merge.write(path, config, form, secret=False)
    assert path.read_text() == text and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "config", "form"),
    [
        ("# Sample\n## model: x\n\n#other: y\n", "a: 1\n", "yaml"),
        ("# Sample", "a: 1\n", "yaml"),
        ("---\n# Sample\n", "a: 1\n", "yaml"),
        ("// Sample\n/* of\n settings */\n", '{"a": 1}', "json"),
        ("# Sample\n", "a = 1\n", "toml"),
    ],
)
def test_a_file_of_comments_keeps_them(text: str, config: str, form: str) -> None:
    after = merged(text, config, form)
    assert after.startswith(text.rstrip()) or form == "toml"
    readers: dict[str, Any] = {"yaml": yaml.safe_load, "json": json5_loads, "toml": tomllib.loads}
    read = readers[form]
    assert read(after) == {"a": 1}
    assert merged(after, config, form) == after


@pytest.mark.parametrize(
    ("text", "config", "form"),
    [
        ("# mine\r\nb: 2\r\n", "a: 1\n", "yaml"),
        ('{\r\n  "b": 2 // mine\r\n}\r\n', '{"a": {"c": [1, 2]}}', "json"),
        ("# mine\r\nb = 2\r\n", "a = 1\n", "toml"),
        ("# only comments\r\n", "a: 1\n", "yaml"),
    ],
)
def test_the_ends_of_lines_stay_as_they_are(tmp_path: Path, text: str, config: str, form: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    backup = merge.write(path, config, form, secret=False)
    assert isinstance(backup, Path) and backup.read_bytes() == text.encode()
    after = path.read_bytes()
    assert b"a" in after and after.count(b"\n") == after.count(b"\r\n") > 1
    assert merge.write(path, config, form, secret=False) is False
