import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from pytest import MonkeyPatch

from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.ide import check, docs
from services.stack.ide.tools import FEATURES, Facts, base_url, key_for, read_tools

TOOLS = read_tools()
FACTS = Facts(
    "https://ai.example.com",
    "the-key-of-this-test",
    "coder",
    "general",
    {"coder": 8192, "general": 4096},
    {"coder": 6144, "general": 3072},
    "qwen3-coder-30b",
)
# The same service with a model for embeddings and one for autocompletion.
MORE = replace(
    FACTS, fim_model="sweep-next-edit-1.5b", embedding="embedding", embedding_window=256, embedding_size=384
)
PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
}
SETTINGS = {"ROUTER_URL": "http://127.0.0.1:4000", "LITELLM_MASTER_KEY": "own"}


def test_the_table_has_the_tools_that_developers_use() -> None:
    assert {
        *("vscode", "cline", "kilo", "llama-vscode", "jetbrains", "zed", "minuet", "codecompanion", "avante"),
        *("gptel", "aider", "opencode", "qwen-code", "codex", "claude-code", "continue", "llm"),
        *("openai-python", "openai-node", "anthropic-python", "langchain", "curl"),
    } <= set(TOOLS)


@pytest.mark.parametrize("facts", [FACTS, MORE], ids=["two-models", "four-models"])
@pytest.mark.parametrize("name", TOOLS)
def test_a_configuration_is_whole(name: str, facts: Facts) -> None:
    tool = TOOLS[name]
    text = facts.fill(tool.config)
    assert not re.search(r"@\w+@", text), "a placeholder was not filled in"
    assert "ai.example.com" in text
    assert set(tool.can) <= set(FEATURES) and tool.can
    assert len(tool.steps) == 3
    assert tool.seen["how"] in ("run", "replayed", "documented")
    assert bool(tool.seen.get("version")) == (tool.seen["how"] != "documented")
    # The key is in the text exactly where the tool cannot read it from elsewhere.
    assert tool.holds_key != bool(tool.variables or tool.key.get("entered"))
    assert ("the-key-of-this-test" in text) == tool.holds_key
    if tool.format:
        assert PARSERS[tool.format](text)


@pytest.mark.parametrize("name", ["continue", "kilo", "llama-vscode", "tabby"])
def test_the_index_is_set_up_where_there_is_a_model_for_it(name: str) -> None:
    with_model, without = MORE.fill(TOOLS[name].config), FACTS.fill(TOOLS[name].config)
    assert "embed" in with_model and "embed" not in without
    assert len(with_model.splitlines()) > len(without.splitlines())


@pytest.mark.parametrize("name", [name for name in TOOLS if "@fim_model@" in TOOLS[name].config])
def test_autocompletion_goes_to_the_model_for_it(name: str) -> None:
    assert "sweep-next-edit-1.5b" in MORE.fill(TOOLS[name].config)


def test_agents_know_what_a_prompt_may_fill() -> None:
    opencode = json.loads(FACTS.fill(TOOLS["opencode"].config))["provider"]["duoserve"]["models"]
    assert opencode["coder"]["limit"] == {"context": 6144, "output": 1024}


def test_the_page_has_not_drifted() -> None:
    page = (ROOT / "docs" / "ide-setup.md").read_text()
    assert page == docs.page(), "run `python -m services.stack.ide.docs > docs/ide-setup.md`"


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_requests_for_what_it_can_do(name: str) -> None:
    requests = check.requests_of(name, "coder", "qwen3-coder-30b")
    assert requests
    if TOOLS[name].seen["how"] == "replayed":
        whats = {request.what.split()[0] for request in requests}
        assert ("autocomplete" in whats) == ("autocomplete" in TOOLS[name].can)
    assert "@" not in json.dumps([request.body["model"] for request in requests])
    more = check.requests_of(name, "coder", "qwen3-coder-30b", "embedding")
    assert ("/v1/embeddings" in {request.path for request in more}) == ("@if embedding" in TOOLS[name].config)
    assert "/v1/embeddings" not in {request.path for request in requests}


def test_the_own_key_is_not_for_a_service_elsewhere(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.delenv("DUOSERVE_API_KEY", raising=False)
    assert key_for(None, SETTINGS) == "own"
    assert key_for("https://ai.example.com", SETTINGS) is None
    monkeypatch.setenv("DUOSERVE_API_KEY", "theirs")
    assert key_for("https://ai.example.com", SETTINGS) == "theirs"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        (None, "http://127.0.0.1:4000"),
        ("https://ai.example.com/v1/", "https://ai.example.com"),
        ("http://[::1]:4000", "http://[::1]:4000"),
    ],
)
def test_the_address(url: str | None, base: str) -> None:
    assert base_url(url, SETTINGS) == base


@pytest.mark.parametrize("url", ["ai.example.com", "ftp://x", "file:///etc/passwd", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Failure, match="--url"):
        base_url(url, SETTINGS)
