import pytest

from tests.unit.ui.test_session import FakeService, end
from ui import titles
from ui.conversation import Message
from ui.session import ChatSession


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def chat(service: FakeService) -> ChatSession:
    session = ChatSession(service)  # type: ignore[arg-type]
    session.current.options.model = "coder"
    return session


def test_the_first_answer_is_followed_by_a_title(chat: ChatSession, service: FakeService) -> None:
    chat.ask("How do I merge two dicts?")
    end(service.asked[0], "With |.")
    chat.collect()
    asked = service.asked[1].request
    assert asked.messages[:2] == [
        {"role": "user", "content": "How do I merge two dicts?"},
        {"role": "assistant", "content": "With |."},
    ]
    assert asked.max_tokens <= 32 and asked.last and not service.asked[0].request.last
    end(service.asked[1], "Merging dicts")
    assert chat.news
    chat.collect()
    assert chat.current.title == "Merging dicts" and len(chat.current.messages) == 2
    chat.ask("And three?")
    end(service.asked[2])
    chat.collect()
    assert len(service.asked) == 3 and service.known == {service.asked[0].id, service.asked[2].id}


def test_a_title_that_somebody_has_written_stays(chat: ChatSession, service: FakeService) -> None:
    chat.ask("one")
    end(service.asked[0])
    chat.collect()
    chat.rename(chat.current.id, "mine")
    end(service.asked[1], "theirs")
    chat.collect()
    assert chat.current.title == "mine"


@pytest.mark.parametrize("why", ["off", "busy", "stopped"])
def test_no_title_is_asked_for_when(chat: ChatSession, service: FakeService, why: str) -> None:
    chat.storage.preferences.titles = why != "off"
    service.queue = 3 if why == "busy" else 0
    chat.ask("one")
    end(service.asked[0], ending="stopped" if why == "stopped" else "complete")
    chat.collect()
    assert len(service.asked) == 1


def test_a_model_that_reasons_does_not_reason_about_a_title(chat: ChatSession, service: FakeService) -> None:
    chat.ask("one")
    service.asked[0].change(reasoning="Hm.")
    end(service.asked[0])
    chat.collect()
    assert service.asked[0].request.think and not service.asked[1].request.think


@pytest.mark.parametrize(
    ("text", "ending", "title"),
    [
        ("Merging dicts", "complete", "Merging dicts"),
        ('**Title: "Merging dicts"**', "complete", "Merging dicts"),
        ("“Zusammenführen”.\n", "complete", "Zusammenführen"),
        ("Sure! Here it is:\nMerging dicts", "complete", ""),
        ("Merging dicts is what you want, and for that there are a number of ways that I can", "length", ""),
        ("word " * 30, "complete", ""),
        ("", "complete", ""),
    ],
)
def test_what_is_no_title_is_not_taken_for_one(text: str, ending: str, title: str) -> None:
    answer = Message.model_validate({"role": "assistant", "text": text, "ending": ending})
    assert titles.read(answer) == title
