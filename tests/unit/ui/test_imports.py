import io
import json
import zipfile
from typing import Any

import pytest

from ui.conversation import FORMAT, Attachment, Conversation, Message, NotAConversation, export
from ui.imports import read

CHATGPT = {
    "title": "Sorting",
    "create_time": 1735689600.0,
    "update_time": 1735689700.0,
    "current_node": "d",
    "mapping": {
        "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
        "s": {
            "message": {
                "author": {"role": "system"},
                "content": {"content_type": "text", "parts": [""]},
                "metadata": {"is_visually_hidden_from_conversation": True},
            },
            "parent": "root",
        },
        "a": {
            "message": {
                "author": {"role": "user"},
                "content": {
                    "content_type": "multimodal_text",
                    "parts": [{"asset_pointer": "x"}, "How do I sort?"],
                },
            },
            "parent": "s",
        },
        "b": {
            "message": {
                "author": {"role": "assistant"},
                "recipient": "python",
                "content": {"content_type": "code", "text": "sorted([2, 1])"},
            },
            "parent": "a",
        },
        "c": {
            "message": {
                "author": {"role": "assistant"},
                "content": {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "Hm."}]},
            },
            "parent": "b",
        },
        "d": {
            "message": {
                "author": {"role": "assistant"},
                "recipient": "all",
                "content": {"content_type": "text", "parts": ["With `sorted`."]},
                "metadata": {"model_slug": "gpt-5"},
            },
            "parent": "c",
        },
        "other branch": {
            "message": {"author": {"role": "assistant"}, "content": {"parts": ["No idea."]}},
            "parent": "a",
        },
    },
}
CLAUDE = {
    "uuid": "8a3f",
    "name": "Sorting",
    "updated_at": "2026-01-02T03:04:05.678901Z",
    "chat_messages": [
        {
            "sender": "human",
            "text": "How do I sort?",
            "content": [{"type": "text", "text": "How do I sort?"}],
            "attachments": [{"file_name": "list.txt", "extracted_content": "2 1"}],
        },
        {
            "sender": "assistant",
            "text": "",
            "content": [
                {"type": "thinking", "thinking": "Hm."},
                {"type": "tool_use", "name": "repl", "input": {}},
                {"type": "text", "text": "With `sorted`."},
            ],
        },
    ],
}
OPEN_WEBUI = {
    "id": "x",
    "title": "Sorting",
    "updated_at": 1735689700,
    "pinned": True,
    "chat": {
        "params": {"system": "Be brief."},
        "messages": [],
        "history": {
            "currentId": "2",
            "messages": {
                "1": {"id": "1", "parentId": None, "role": "user", "content": "How do I sort?"},
                "2": {
                    "id": "2",
                    "parentId": "1",
                    "role": "assistant",
                    "model": "qwen3",
                    "content": '<details type="reasoning" done="true" duration="3">\n'
                    "<summary>Thought for 3 seconds</summary>\n> Hm.\n</details>\nWith `sorted`.",
                },
                "3": {"id": "3", "parentId": "1", "role": "assistant", "content": "No idea."},
            },
        },
    },
}


def dumped(given: Any) -> bytes:
    return json.dumps(given).encode()


@pytest.mark.parametrize(
    ("entry", "model", "year"),
    [(CHATGPT, "gpt-5", 2025), (CLAUDE, "", 2026), (OPEN_WEBUI, "qwen3", 2025)],
    ids=["ChatGPT", "Claude", "Open WebUI"],
)
def test_exports_of_other_apps_are_read(entry: dict[str, Any], model: str, year: int) -> None:
    ([conversation], problems) = read(dumped([entry]))
    assert problems == [] and conversation.title == "Sorting" and conversation.updated.year == year
    question, answer = conversation.messages
    assert (question.role, question.text) == ("user", "How do I sort?")
    assert (answer.role, answer.text, answer.reasoning) == ("assistant", "With `sorted`.", "Hm.")
    assert answer.model == model


def test_what_else_other_apps_keep_is_kept() -> None:
    ([claude, webui], _) = read(dumped([CLAUDE, OPEN_WEBUI]))
    assert claude.messages[0].attachments == [Attachment(name="list.txt", text="2 1")]
    assert webui.pinned and webui.options.system == "Be brief."


def test_an_archive_as_it_was_downloaded_is_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("export/conversations.json", json.dumps([CHATGPT]))
        archive.writestr("export/user.json", "{}")
    assert len(read(file.getvalue())[0]) == 1


def test_an_own_export_comes_back_as_it_was() -> None:
    conversation = Conversation()
    conversation.ask("question", [Attachment(name="ä.py", text="print('ü')")])
    conversation.answered(Message(role="assistant", text="answer", model="coder"))
    assert read(export([conversation]).encode()) == ([conversation], [])


def test_what_is_good_is_taken_and_the_rest_named() -> None:
    broken = CHATGPT | {"title": "Broken", "mapping": {"d": {"message": {"content": {}}}}}
    found, problems = read(dumped([CLAUDE, broken, {"format": FORMAT + 1}, 7, {"uuid": "?"}]))
    assert [each.title for each in found] == ["Sorting"]
    assert problems[0] == "“Broken” is damaged." and "update Duoserve" in problems[1] and len(problems) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[]", "contains no conversations"),
        (b"PK\x03\x04", "damaged or encrypted"),
        (b'{"conversations": [{"format": 1, "messages": 3}]}', "damaged (at messages)"),
        (b'{"conversations": [{"format": 1, "id": "../x", "messages": []}]}', "damaged (at id)"),
        (dumped({"conversations": [{"format": FORMAT + 1}]}), "update Duoserve"),
        (b"[7]", "not a conversation"),
        (dumped([CLAUDE | {"chat_messages": []}]), "contains no conversations"),
    ],
)
def test_an_import_that_cannot_be_read_says_why(content: bytes, said: str) -> None:
    with pytest.raises(NotAConversation) as problem:
        read(content)
    assert said in str(problem.value)
