import re
from pathlib import Path

from ui.ide import HIDDEN, tools, values

WINDOWS = {"coder": 8192, "general": 4096}


def test_every_tool_of_the_table_gets_all_its_values() -> None:
    filled = values("http://ai:4000", HIDDEN, WINDOWS, 0.75, ["coder"])
    assert len(tools()) > 5
    for tool in tools():
        settings = tool.settings(filled)
        assert not re.search(r"@[a-z_]+@", settings), tool.title
        assert "ai:4000" in settings, tool.title


def test_the_values_are_those_of_the_service() -> None:
    filled = values("b", "k", WINDOWS, 0.75, ["coder", "qwen2.5-coder-32b"])
    assert filled["coder_prompt"] == "6144" and filled["general_window"] == "4096"
    assert filled["answer"] == "1024" and filled["fim_model"] == "qwen2.5-coder-32b"


def test_without_the_table_there_are_no_tools(tmp_path: Path) -> None:
    assert tools(tmp_path / "ide.yaml") == []
