from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ui.conversation import Conversation, Message
from ui.storage import BrowserStorage


def sent(storage: BrowserStorage) -> list[dict[str, Any]]:
    changes = storage.outgoing()["changes"]
    assert isinstance(changes, list)
    return changes


def asked(text: str = "question") -> Conversation:
    conversation = Conversation()
    conversation.ask(text)
    return conversation


def snapshot(storage: BrowserStorage, *conversations: Conversation, **more: Any) -> dict[str, Any]:
    return {
        "nonce": storage.nonce,
        "sequence": 0,
        "held": [each.id for each in conversations],
        "conversations": [each.model_dump(mode="json") for each in conversations],
        **more,
    }


def test_nothing_but_what_the_session_works_with_is_asked_of_the_browser() -> None:
    storage, conversation = BrowserStorage(), asked()
    assert storage.outgoing()["held"] == []
    storage.look_up(conversation.id)
    assert storage.outgoing()["held"] == [conversation.id] and storage.looks_for(conversation.id)
    storage.receive(snapshot(storage, conversation))
    assert not storage.looks_for(conversation.id)
    storage.let_go({conversation.id})
    assert storage.conversations == {conversation.id: conversation}
    storage.let_go(())
    assert storage.conversations == {} and storage.outgoing()["held"] == []


def test_what_is_not_stored_yet_is_not_let_go() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.save(conversation)
    storage.let_go(())
    assert storage.conversations
    storage.acknowledged({"nonce": storage.nonce, "sequence": 1})
    storage.let_go(())
    assert not storage.conversations


def test_a_conversation_that_the_browser_lacks_is_looked_up_once() -> None:
    storage = BrowserStorage()
    storage.look_up("c0ffee")
    storage.receive(snapshot(storage, held=["c0ffee"]))
    assert not storage.looks_for("c0ffee") and not storage.conversations


def test_a_title_changes_without_the_conversation() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.change("c0ffee", title="better")
    storage.save(conversation)
    storage.change(conversation.id, title="best")
    head, put = sent(storage)
    assert (head["op"], head["id"], head["fields"]) == ("head", "c0ffee", {"title": "better"})
    assert put["conversation"]["title"] == "best"


def test_a_rescue_gives_way_unless_the_session_has_more_to_save() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.save(conversation, rescue=True)
    assert sent(storage)[-1]["rescue"]
    storage.save(conversation, rescue=True)
    assert sent(storage)[-1]["rescue"]
    storage.save(conversation)
    storage.save(conversation, rescue=True)
    assert not sent(storage)[-1]["rescue"]


def test_a_title_from_another_tab_reaches_a_conversation_with_a_growing_answer() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.save(conversation)
    theirs = conversation.model_copy(deep=True, update={"title": "renamed", "messages": []})
    storage.receive(snapshot(storage, theirs, sequence=1), busy={conversation.id})
    assert conversation.title == "renamed" and len(conversation.messages) == 1
    assert storage.conversations[conversation.id] is conversation


def test_changes_go_out_until_they_are_acknowledged() -> None:
    storage = BrowserStorage()
    storage.save(asked())
    storage.delete("0")
    storage.acknowledged({"nonce": storage.nonce, "sequence": 1})
    assert [change["op"] for change in sent(storage)] == ["delete"]


def test_an_acknowledgement_of_another_session_counts_for_nothing() -> None:
    storage = BrowserStorage()
    storage.save(asked())
    storage.acknowledged({"nonce": "somebody else", "sequence": 99})
    assert len(sent(storage)) == 1


def test_only_the_newest_state_goes_out_on_the_base_that_the_browser_knows() -> None:
    storage, conversation = BrowserStorage(), asked()
    conversation.revision = "known"
    storage.save(conversation)
    conversation.ask("second")
    storage.save(conversation)
    (change,) = sent(storage)
    assert change["base"] == "known"
    assert len(change["conversation"]["messages"]) == 2
    assert change["conversation"]["revision"] == conversation.revision


def test_what_the_browser_holds_is_taken_over_but_not_over_unsaved_changes() -> None:
    storage, ours, theirs = BrowserStorage(), asked("ours"), asked("theirs")
    stale = ours.model_copy(deep=True)
    storage.save(ours)
    ours.ask("newer")
    storage.receive(snapshot(storage, stale, theirs))
    assert storage.loaded
    assert len(storage.conversations[ours.id].messages) == 2
    assert storage.conversations[theirs.id].messages[0].text == "theirs"


def test_a_look_from_before_a_change_does_not_undo_it_even_when_that_is_acknowledged() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.save(conversation)
    before = snapshot(storage, conversation, sequence=1)
    conversation.ask("second")
    storage.save(conversation)
    storage.acknowledged({"nonce": storage.nonce, "sequence": 2})
    storage.receive(before)
    assert len(storage.conversations[conversation.id].messages) == 2


def test_a_deletion_that_is_under_way_is_not_undone_by_a_snapshot() -> None:
    storage, conversation = BrowserStorage(), asked()
    storage.receive(snapshot(storage, conversation))
    storage.delete(conversation.id)
    storage.receive(snapshot(storage, conversation))
    assert not storage.conversations
    storage.receive(snapshot(storage, sequence=1, held=[conversation.id]))
    assert not storage.conversations


def test_damaged_conversations_are_skipped_with_the_reason_and_the_others_load() -> None:
    storage, conversation = BrowserStorage(), asked()
    said = snapshot(storage, conversation)
    said["conversations"] += [{"format": 1, "id": "x", "messages": "?"}, {"format": 99, "id": "y"}, None]
    storage.receive(said)
    assert list(storage.conversations) == [conversation.id]
    assert "damaged" in storage.unreadable["x"] and "update Duoserve" in storage.unreadable["y"]


def test_damaged_preferences_leave_the_defaults() -> None:
    storage = BrowserStorage()
    storage.receive(snapshot(storage, preferences={"keep": "forever"}))
    assert storage.preferences.keep == "device" and storage.preferences.presets


def test_what_two_tabs_changed_at_once_is_there_twice_and_ours_goes_on_under_its_new_id() -> None:
    storage, ours = BrowserStorage(), asked()
    old = ours.id
    theirs = ours.model_copy(deep=True)
    storage.save(ours)
    before = snapshot(storage, theirs, moved={old: "c0ffee"}, sequence=1)
    ours.ask("second")
    storage.save(ours)
    assert storage.receive(before) == {old: "c0ffee"}
    assert len(storage.conversations[old].messages) == 1
    assert storage.conversations["c0ffee"] is ours and len(ours.messages) == 2
    assert sent(storage)[-1]["conversation"]["id"] == "c0ffee"
    assert storage.outgoing()["moves"] == {old: "c0ffee"}
    assert storage.receive(before) == {} and storage.conversations[old].id == old
    assert storage.receive(before | {"moved": {old: "decaf"}}) == {old: "decaf"}  # it happened again


class Browser:
    """What `storage.js` makes of the changes: every version that it knows, by its revision."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Any]] = {}
        self.done = 0

    def make(self, storage: BrowserStorage) -> None:
        for change in sent(storage):
            if change["sequence"] > self.done:
                stored = change["conversation"]
                known = self.versions[change["after"]][: change["same"]] if change["after"] else []
                self.versions[stored["revision"]] = known + stored["messages"]
                self.done = change["sequence"]

    def acknowledge(self, storage: BrowserStorage) -> None:
        storage.acknowledged({"nonce": storage.nonce, "sequence": self.done})


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.sampled_from(["ask", "answer", "change", "delete", "make", "acknowledge"]), max_size=30))
def test_whatever_is_left_out_of_a_change_the_browser_has(steps: list[str]) -> None:
    storage, browser, conversation = BrowserStorage(), Browser(), asked("first")
    storage.save(conversation)
    for number, step in enumerate(steps):
        if step == "make":
            browser.make(storage)
        elif step == "acknowledge":
            browser.acknowledge(storage)
        else:
            if step == "ask":
                conversation.ask(f"question {number}")
            elif step == "answer":
                conversation.answered(Message(role="assistant", text=f"answer {number}"))
            elif step == "change":
                conversation.messages[number % len(conversation.messages)].text = f"changed {number}"
            elif len(conversation.messages) > 1:
                del conversation.messages[number % len(conversation.messages)]
            storage.save(conversation)
    browser.make(storage)
    assert browser.versions[conversation.revision] == conversation.model_dump(mode="json")["messages"]


def test_a_long_conversation_is_not_sent_again_for_each_answer() -> None:
    storage, conversation = BrowserStorage(), asked()
    for number in range(50):
        conversation.answered(Message(role="assistant", text=f"answer {number}"))
        conversation.ask(f"question {number}")
    storage.take(conversation.model_dump(mode="json"))
    conversation = storage.conversations[conversation.id]
    conversation.ask("one more")
    storage.save(conversation)
    (change,) = sent(storage)
    assert [message["text"] for message in change["conversation"]["messages"]] == ["one more"]
    storage.send_whole()
    (change,) = sent(storage)
    assert len(change["conversation"]["messages"]) == len(conversation.messages) and not change["after"]
