"""Other versions of questions and answers, and switching between them."""

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ui.conversation import Conversation, Message, export
from ui.imports import read


def answer(text: str) -> Message:
    return Message(role="assistant", text=text, model="coder")


def talk(turns: int) -> Conversation:
    conversation = Conversation()
    for number in range(turns):
        conversation.ask(f"question {number}")
        conversation.answered(answer(f"answer {number}"))
    return conversation


def texts(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages]


def everything(conversation: Conversation) -> list[str]:
    """The texts of all messages in all versions."""

    def walk(messages: Sequence[Message]) -> Iterator[str]:
        for message in messages:
            yield message.text
            for other in message.following.others:
                yield from walk(other)

    others = [text for other in conversation.first.others for text in walk(other)]
    return sorted([*walk(conversation.messages), *others])


def test_another_answer_keeps_the_earlier_one() -> None:
    conversation = talk(1)
    conversation.begin_answer()
    assert texts(conversation) == ["question 0"]
    conversation.answered(answer("better"))
    versions = conversation.versions(1)
    assert (versions.at, versions.count) == (1, 2)
    conversation.show_version(1, 0)
    assert texts(conversation) == ["question 0", "answer 0"]
    conversation.show_version(1, 1)
    assert texts(conversation) == ["question 0", "better"]


def test_an_answer_that_failed_without_text_is_no_version() -> None:
    conversation = Conversation()
    conversation.ask("why?")
    conversation.answered(answer(""))
    conversation.begin_answer()
    assert conversation.versions(1).count == 1


def test_an_edited_question_keeps_what_followed_the_old_one() -> None:
    conversation = talk(3)
    conversation.edit(0, "another question")
    conversation.answered(answer("another answer"))
    assert texts(conversation) == ["another question", "another answer"]
    conversation.show_version(0, 0)
    assert texts(conversation) == [
        f"{kind} {number}" for number in range(3) for kind in ("question", "answer")
    ]


def test_versions_survive_export_and_import() -> None:
    conversation = talk(2)
    conversation.edit(2, "edited")
    ([stored], _) = read(export([conversation]).encode())
    stored.show_version(2, 0)
    assert texts(stored) == ["question 0", "answer 0", "question 1", "answer 1"]


def test_what_followed_a_deleted_turn_keeps_its_versions() -> None:
    conversation = talk(2)
    conversation.edit(2, "edited")
    conversation.delete_turn(0)
    assert texts(conversation) == ["edited"] and conversation.versions(0).count == 2
    conversation.show_version(0, 0)
    assert texts(conversation) == ["question 1", "answer 1"]


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.tuples(st.sampled_from(["edit", "again", "show", "ask"]), st.integers(0, 40)), max_size=25)
)
def test_nothing_is_ever_lost(steps: list[tuple[str, int]]) -> None:
    conversation, written = talk(2), ["answer 0", "answer 1", "question 0", "question 1"]
    for step, (what, number) in enumerate(steps):
        questions = [at for at, each in enumerate(conversation.messages) if each.role == "user"]
        if what == "show":
            index = number % (len(conversation.messages) + 1)
            conversation.show_version(index, number % conversation.versions(index).count)
            continue
        if what == "edit" and questions:
            conversation.edit(questions[number % len(questions)], f"edited {step}")
            written.append(f"edited {step}")
        elif what == "again" and questions:
            conversation.begin_answer()
        else:
            conversation.ask(f"asked {step}")
            written.append(f"asked {step}")
        conversation.answered(answer(f"answered {step}"))
        written.append(f"answered {step}")
        assert everything(conversation) == sorted(written)
