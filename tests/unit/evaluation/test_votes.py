import json
from pathlib import Path

import pytest

from services.stack.evaluation.command import evaluate
from services.stack.failure import Failure


def vote(better: str, *models: str) -> dict[str, object]:
    return {"question": "why?", "models": models, "answers": ["this", "that"], "better": better}


def test_votes_are_counted_for_each_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "votes.json"
    given = [
        vote("coder", "coder", "general"),
        vote("coder", "general", "coder"),
        vote("general", "coder", "general"),
        vote("tie", "coder", "general"),
        vote("neither", "coder", "small"),
    ]
    file.write_text(json.dumps({"votes": given}))
    assert evaluate("votes", None, None, None, str(file)) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "coder, general 4 coder 2 (67%), general 1 (33%) 1 0" in lines
    assert "coder, small 1 coder 0, small 0 0 1" in lines


@pytest.mark.parametrize(
    "text", ["", "[]", '{"votes": []}', '{"votes": [{"models": ["a", "b"], "better": "c"}]}']
)
def test_a_file_without_votes_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "votes.json"
    file.write_text(text)
    with pytest.raises(Failure, match="holds no votes"):
        evaluate("votes", None, None, None, str(file))


def test_votes_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--file"):
        evaluate("votes", None, None, None, None)
    with pytest.raises(Failure, match="cannot read"):
        evaluate("votes", None, None, None, str(tmp_path / "none"))
