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


def test_other_models_are_for_what_they_are_made_for() -> None:
    edit = ListedModel("edit", "edit", 4096, mode="completion")
    more = [
        ListedModel("embedding", "embedding", 512, mode="embedding", vector_size=384),
        edit,
        *MODELS,
        ListedModel("sweep-next-edit-1.5b", "edit", 4096),
    ]
    filled = values("b", "k", more, 0.75)
    assert (filled["coder"], filled["general"], filled["embedding"]) == ("coder", "general", "embedding")
    assert filled["fim_model"] == "sweep-next-edit-1.5b"
    (kilo,) = (tool for tool in tools() if tool.title == "Kilo Code")
    assert '"indexing"' in kilo.settings(filled) and '"dimension": 384' in kilo.settings(filled)
    without = kilo.settings(values("b", "k", MODELS, 0.75))
    assert '"indexing"' not in without and "@" not in without.replace("@ai-sdk", "")


def test_without_the_table_there_are_no_tools(tmp_path: Path) -> None:
    assert tools(tmp_path / "ide.yaml") == []
