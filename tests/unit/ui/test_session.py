import pytest

from ui.answers import Answer
from ui.conversation import Conversation, Message
from ui.session import ChatSession
from ui.storage import BrowserStorage


class FakeService:
    """Takes questions as the real one does; the test says what comes."""

    def __init__(self) -> None:
        self.asked: list[Answer] = []
        self.stopped: list[Answer] = []
        self.abandoned: dict[str, Answer] = {}
        self.known: set[str] = set()
        self.keys_refused: list[str] = []
        self.queue = 0

    def ask(self, answer: Answer) -> Answer:
        self.asked.append(answer)
        self.known.add(answer.id)
        return answer

    def stop(self, answer: Answer) -> None:
        self.stopped.append(answer)

    def waiting(self, model: str) -> int:
        return self.queue

    def sees(self, model: str) -> bool:
        return model == "eyes"

    def knows(self, answer_id: str) -> bool:
        return answer_id in self.known

    def stored(self, answer: Answer) -> None:
        self.known.discard(answer.id)

    def refused(self, key: str) -> None:
        self.keys_refused.append(key)

    def take_over(self, answer_id: str) -> Answer | None:
        return self.abandoned.pop(answer_id, None)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def chat(service: FakeService) -> ChatSession:
    session = ChatSession(service)  # type: ignore[arg-type]
    session.current.options.model = "coder"
    session.storage.preferences.titles = False
    return session


def end(answer: Answer, text: str = "answer", ending: str = "complete") -> None:
    answer.message.ending = ending  # type: ignore[assignment]
    answer.change("ended", text=text)


def turn(chat: ChatSession, service: FakeService, question: str, answer: str = "answer") -> None:
    chat.ask(question)
    end(service.asked[-1], answer)
    chat.collect()


def acknowledge(chat: ChatSession) -> None:
    """As the browser does when it has made every change."""
    sequences = [change["sequence"] for change in chat.storage.outgoing()["changes"]]
    chat.stored({"nonce": chat.storage.nonce, "sequence": max(sequences, default=0)})


def report(chat: ChatSession, *conversations: Conversation, **more: object) -> None:
    """What the browser says that it has of these."""
    chat.received(
        {
            "nonce": chat.storage.nonce,
            "sequence": 99,
            "held": chat.storage.outgoing()["held"],
            "conversations": [each.model_dump(mode="json") for each in conversations],
            **more,
        }
    )


def texts(chat: ChatSession) -> list[str]:
    return [message.text for message in chat.current.messages]


def test_a_question_is_saved_before_its_answer_is_there(chat: ChatSession, service: FakeService) -> None:
    chat.ask("why?")
    assert chat.storage.conversations[chat.current.id].messages[0].text == "why?"
    assert service.asked[0].request.messages == [{"role": "user", "content": "why?"}]
    assert not chat.collect()
    end(service.asked[0])
    assert chat.collect() and texts(chat) == ["why?", "answer"] and chat.answer is None


def test_who_asks_is_signed_out_when_their_key_is_refused_and_the_question_is_stored(
    chat: ChatSession, service: FakeService
) -> None:
    chat.key = "ann"
    chat.storage.preferences.titles = True
    turn(chat, service, "why?")
    assert [answer.request.key for answer in service.asked] == ["ann", "ann"], "the answer and its title"
    acknowledge(chat)
    chat.ask("and now?")
    service.asked[-1].message.failure_kind = "personal"
    end(service.asked[-1], "", "failed")
    chat.collect()
    assert not service.keys_refused
    acknowledge(chat)
    assert service.keys_refused == ["ann"]


def test_what_came_before_a_stop_is_kept(chat: ChatSession, service: FakeService) -> None:
    chat.ask("why?")
    service.asked[0].change("answering", text="half")
    service.asked[0].message.ending = "stopped"  # as `give` leaves it
    service.asked[0].change("ended")
    assert chat.collect()
    assert texts(chat) == ["why?", "half"] and chat.current.messages[-1].ending == "stopped"


def test_a_question_during_an_answer_stops_that_and_keeps_it(chat: ChatSession, service: FakeService) -> None:
    chat.ask("one")
    service.asked[0].change("answering", text="half")
    chat.ask("two")
    assert service.stopped == service.asked[:1] and texts(chat) == ["one", "half", "two"]


def test_an_answer_goes_on_while_another_conversation_is_open(
    chat: ChatSession, service: FakeService
) -> None:
    chat.ask("one")
    first = chat.current
    chat.new()
    assert chat.answer is None and chat.current is not first
    end(service.asked[0], "late")
    chat.collect()
    assert [message.text for message in first.messages] == ["one", "late"]


def test_regenerate_and_undo(chat: ChatSession, service: FakeService) -> None:
    turn(chat, service, "one", "first answer")
    chat.retry()
    assert service.asked[1].request.messages == [{"role": "user", "content": "one"}]
    chat.undo()
    assert texts(chat) == ["one", "first answer"] and service.stopped == [service.asked[1]]


def test_regenerate_asks_for_another_answer_and_try_again_for_the_same(
    chat: ChatSession, service: FakeService
) -> None:
    turn(chat, service, "one")
    chat.retry()
    assert service.asked[0].request.temperature is None
    assert service.asked[1].request.temperature == 0.7
    end(service.asked[1], "half", "failed")
    chat.collect()
    chat.retry()
    assert service.asked[2].request.temperature is None
    chat.current.options.temperature = 0.2
    end(service.asked[2])
    chat.collect()
    chat.retry()
    assert service.asked[3].request.temperature == 0.2


def test_edit_asks_again_and_undo_brings_everything_back(chat: ChatSession, service: FakeService) -> None:
    turn(chat, service, "one")
    turn(chat, service, "two")
    chat.edit(0, "better")
    assert service.asked[-1].request.messages == [{"role": "user", "content": "better"}]
    chat.undo()
    assert texts(chat) == ["one", "answer", "two", "answer"]


def test_continue_goes_on_with_the_text_that_is_there(chat: ChatSession, service: FakeService) -> None:
    chat.ask("one")
    end(service.asked[0], "The cat", "length")
    chat.collect()
    chat.go_on()
    request = service.asked[1].request
    assert request.continue_last
    assert request.messages[-1] == {"role": "assistant", "content": "The cat"}
    end(service.asked[1], " sat.")
    chat.collect()
    assert texts(chat) == ["one", "The cat sat."]


def test_delete_a_conversation_stops_its_answer_and_can_be_undone(
    chat: ChatSession, service: FakeService
) -> None:
    chat.ask("one")
    gone = chat.current.id
    chat.delete(gone, chat.current.name)
    assert service.stopped == service.asked and gone not in chat.storage.conversations
    assert not chat.current.messages
    chat.undo()
    assert chat.current.id == gone and gone in chat.storage.conversations


def test_a_turn_can_be_deleted_and_brought_back(chat: ChatSession, service: FakeService) -> None:
    turn(chat, service, "one")
    turn(chat, service, "two")
    chat.delete_turn(1)
    assert texts(chat) == ["two", "answer"]
    chat.undo()
    assert texts(chat) == ["one", "answer", "two", "answer"]


def test_a_new_conversation_keeps_the_model_of_the_last_choice(chat: ChatSession) -> None:
    chat.current.options.model = "general"
    chat.options_changed()
    chat.ask("x")
    chat.new()
    assert chat.current.options.model == "general"


def test_an_import_is_added_and_never_put_in_place_of_something(
    chat: ChatSession, service: FakeService
) -> None:
    turn(chat, service, "mine")
    copy = chat.current.model_copy(deep=True)
    chat.add([copy])
    assert chat.storage.outgoing()["changes"][-1]["op"] == "add"
    assert len(chat.storage.conversations) == 1


def test_a_conversation_is_opened_when_the_browser_has_sent_it(
    chat: ChatSession, service: FakeService
) -> None:
    turn(chat, service, "mine")
    acknowledge(chat)
    wanted = Conversation(title="wanted")
    wanted.ask("theirs")
    chat.open(wanted.id)
    assert chat.opening == wanted.id and not chat.current.messages
    report(chat, wanted)
    assert not chat.opening and texts(chat) == ["theirs"]
    assert set(chat.storage.conversations) == {wanted.id}


def test_a_conversation_that_comes_with_the_click_opens_at_once(chat: ChatSession) -> None:
    wanted = Conversation(title="wanted")
    wanted.ask("theirs")
    chat.open(wanted.id, wanted.model_dump(mode="json"))
    assert not chat.opening and texts(chat) == ["theirs"]


def test_what_the_browser_lacks_or_cannot_be_read_is_named(chat: ChatSession) -> None:
    chat.open("c0ffee")
    report(chat)
    assert "no such conversation" in chat.problem and not chat.opening
    chat.open("decaf")
    assert not chat.problem
    chat.received(
        {
            "nonce": chat.storage.nonce,
            "sequence": 99,
            "held": ["decaf"],
            "conversations": [{"id": "decaf", "format": 99}],
        }
    )
    assert "update Duoserve" in chat.problem
    chat.ask("Hello")
    assert not chat.problem


def test_another_conversation_is_deleted_and_restored_by_the_browser(chat: ChatSession) -> None:
    chat.delete("c0ffee", "Theirs")
    assert chat.undoable and chat.undoable.notice == "“Theirs” deleted."
    chat.undo()
    assert [change["op"] for change in chat.storage.outgoing()["changes"]] == ["delete", "restore"]


def test_a_reload_finds_the_running_answer_again(service: FakeService, chat: ChatSession) -> None:
    chat.ask("why?")
    answer = service.asked[0]
    service.abandoned[answer.id] = answer
    later = ChatSession(service)  # type: ignore[arg-type]
    later.storage = BrowserStorage(conversations={chat.current.id: chat.current.model_copy(deep=True)})
    later.open(chat.current.id)
    assert later.answer is answer


def test_an_answer_is_unseen_until_the_browser_has_stored_it(service: FakeService, chat: ChatSession) -> None:
    chat.ask("why?")
    answer = service.asked[0]
    assert chat.unseen() == [answer]
    end(answer)
    chat.collect()
    assert chat.unseen() == [answer]
    assert service.knows(answer.id)
    acknowledge(chat)
    assert chat.unseen() == [] and not service.knows(answer.id)


def test_what_the_browser_kept_of_a_lost_answer_is_its_answer(
    service: FakeService, chat: ChatSession
) -> None:
    chat.ask("why?")
    lost = chat.current.answering
    later = ChatSession(service)  # type: ignore[arg-type]
    later.open(chat.current.id)
    half = Message(role="assistant", text="half").model_dump(mode="json")
    report(later, chat.current, partials={lost: half})
    assert texts(later) == ["why?"]  # the first page has it, and will store it
    service.known.clear()
    later.resume()
    assert texts(later) == ["why?", "half"] and later.current.messages[1].ending == "failed"
    assert not later.current.answering
    assert later.storage.outgoing()["changes"][-1]["rescue"]  # unless another tab has stored it this moment


def test_a_conversation_changed_in_two_tabs_goes_on_as_a_copy(chat: ChatSession) -> None:
    chat.ask("why?")
    mine = chat.current.id
    other = Conversation(id=mine, title="theirs")
    chat.received(
        {
            "nonce": chat.storage.nonce,
            "sequence": 99,
            "moved": {mine: "c0ffee"},
            "conversations": [
                other.model_dump(mode="json"),
                chat.current.model_copy(update={"id": "c0ffee"}).model_dump(mode="json"),
            ],
        }
    )
    assert chat.current.id == "c0ffee" and chat.answer is not None
    assert set(chat.storage.conversations) == {"c0ffee"}
    assert chat.storage.conversations["c0ffee"] is chat.current
