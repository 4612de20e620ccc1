import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ui.conversation import (
    TITLE_LENGTH,
    Attachment,
    Conversation,
    Message,
    parse,
    propose_title,
)


def answer(text: str = "An answer.", **fields: object) -> Message:
    return Message.model_validate({"role": "assistant", "text": text, "model": "coder", **fields})


def talk(turns: int = 2) -> Conversation:
    conversation = Conversation()
    for number in range(turns):
        conversation.ask(f"question {number}")
        conversation.answered(answer(f"answer {number}"))
    return conversation


def texts(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages]


def test_the_first_question_proposes_the_title_and_later_ones_leave_it() -> None:
    conversation = Conversation()
    conversation.ask("How do I *merge* two dicts?")
    conversation.ask("And three?")
    assert conversation.title == "How do I merge two dicts?"


def test_a_question_of_files_only_is_named_by_them() -> None:
    conversation = Conversation()
    conversation.ask("", [Attachment(name="a.py", text="x"), Attachment(name="b_c.py", text="y")])
    assert conversation.title == "a.py, b_c.py"


def test_a_long_title_is_cut_at_a_word() -> None:
    title = propose_title("word " * 40)
    assert title.endswith("word…") and len(title) <= TITLE_LENGTH + 1


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=300))
def test_a_title_is_one_short_line_whatever_the_question(question: str) -> None:
    title = propose_title(question)
    assert len(title) <= TITLE_LENGTH + 1 and len(title.splitlines()) <= 1


def test_editing_a_question_begins_a_version_without_what_came_after_it() -> None:
    conversation = talk(3)
    conversation.edit(2, "better question")
    assert texts(conversation) == ["question 0", "answer 0", "better question"]


def test_editing_keeps_the_attachments_that_are_named() -> None:
    conversation = Conversation()
    conversation.ask("q", [Attachment(name="a", text="1"), Attachment(name="b", text="2")])
    conversation.edit(0, "q2", ["b"])
    assert [attached.name for attached in conversation.messages[0].attachments] == ["b"]


def test_a_new_answer_takes_the_place_of_the_old_one() -> None:
    conversation = talk(1)
    conversation.answered(answer("better"))
    assert texts(conversation) == ["question 0", "better"]


@pytest.mark.parametrize("index", [2, 3])
def test_deleting_a_turn_takes_question_and_answer(index: int) -> None:
    conversation = talk(3)
    conversation.delete_turn(index)
    assert texts(conversation) == ["question 0", "answer 0", "question 2", "answer 2"]


def test_deleting_a_question_without_answer_leaves_the_others() -> None:
    conversation = talk(1)
    conversation.ask("unanswered")
    conversation.delete_turn(2)
    assert texts(conversation) == ["question 0", "answer 0"]


def test_the_prompt_has_the_system_message_first_and_no_empty_answers() -> None:
    conversation = talk(1)
    conversation.options.system = "Be brief."
    conversation.ask("again")
    conversation.answered(answer("", ending="failed"))
    assert [message["role"] for message in conversation.prompt()] == ["system", "user", "assistant", "user"]


def test_attachments_come_before_the_question_in_a_fence_they_cannot_close() -> None:
    conversation = Conversation()
    conversation.ask("What is this?", [Attachment(name="a.md", text="```\ncode\n```\n")])
    content = str(conversation.prompt()[0].get("content"))
    assert content == "File `a.md`:\n````\n```\ncode\n```\n````\n\nWhat is this?"


def test_context_is_counted_from_the_last_answer_and_what_it_left_out() -> None:
    conversation = talk(1)
    conversation.ask("more")
    conversation.answered(answer(prompt_tokens=400, completion_tokens=50, left_out_tokens=100))
    assert conversation.context_tokens == 550


def test_first_kept_is_the_message_behind_those_that_were_left_out() -> None:
    conversation = talk(3)
    conversation.messages[-1] = answer(prompt_tokens=10, left_out=2)
    assert conversation.first_kept() == 2
    conversation.messages[-1] = answer(prompt_tokens=10)
    assert conversation.first_kept() is None


def test_first_kept_does_not_count_answers_that_were_never_sent() -> None:
    conversation = talk(1)
    conversation.ask("fails")
    conversation.answered(answer("", ending="failed"))
    conversation.ask("works")
    conversation.answered(answer(prompt_tokens=10, left_out=3))
    assert conversation.first_kept() == 4  # sent: 0, 1, 2, 4


def test_markdown_export_has_everything_a_reader_wants() -> None:
    conversation = talk(1)
    conversation.options.system = "Be brief."
    conversation.ask("last")
    conversation.answered(answer("half", ending="stopped"))
    written = conversation.as_markdown()
    for part in ("# question 0", "> Be brief.", "## Answer (coder)", "half", "*(stopped)*"):
        assert part in written


def test_a_conversation_stored_by_this_version_stays_readable() -> None:
    stored = {
        "format": 1,
        "id": "0123456789abcdef",
        "revision": "ff",
        "title": "t",
        "pinned": True,
        "updated": "2026-11-22T17:00:00Z",
        "options": {"model": "coder", "system": "", "temperature": 0.7, "top_p": 1, "max_tokens": 2048},
        "messages": [{"role": "user", "text": "hi", "attachments": []}],
        "answering": "",
    }
    assert parse(stored).messages[0].text == "hi"


def test_speed_counts_the_tokens_after_the_first() -> None:
    assert answer(completion_tokens=101, seconds=2.0).tokens_per_second == 50
    assert answer(completion_tokens=1, seconds=2.0).tokens_per_second is None
