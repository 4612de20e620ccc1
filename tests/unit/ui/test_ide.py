import re
from pathlib import Path

from ui.ide import HIDDEN, tools, values
from ui.router_client import ListedModel

MODELS = [
    ListedModel("coder", "coder", 8192),
    ListedModel("general", "general", 4096),
    ListedModel("qwen2.5-coder-32b", "coder", 8192),
]


def test_every_tool_of_the_table_gets_all_its_values() -> None:
    filled = values("http://ai:4000", HIDDEN, MODELS, 0.75)
    assert len(tools()) > 5
    for tool in tools():
        settings = tool.settings(filled)
        assert not re.search(r"@[a-z_]+@", settings), tool.title
        assert "ai:4000" in settings, tool.title


def test_the_values_are_those_of_the_service() -> None:
    filled = values("b", "k", MODELS, 0.75)
    assert filled["coder_prompt"] == "6144" and filled["general_window"] == "4096"
    assert filled["coder"] == "coder" and filled["general"] == "general"
    assert filled["answer"] == "1024" and filled["fim_model"] == "qwen2.5-coder-32b"


def test_without_the_table_there_are_no_tools(tmp_path: Path) -> None:
    assert tools(tmp_path / "ide.yaml") == []
