from typing import Any

from ui.conversation import Conversation
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
        "conversations": [each.model_dump(mode="json") for each in conversations],
        **more,
    }


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


def test_damaged_conversations_are_skipped_and_the_others_load() -> None:
    storage, conversation = BrowserStorage(), asked()
    said = snapshot(storage, conversation)
    said["conversations"] += [{"format": 1, "id": "x", "messages": "?"}, {"format": 99}, None]
    storage.receive(said)
    assert list(storage.conversations) == [conversation.id]


def test_damaged_preferences_leave_the_defaults() -> None:
    storage = BrowserStorage()
    storage.receive(snapshot(storage, preferences={"keep": "forever"}))
    assert storage.preferences.keep == "device" and storage.preferences.presets


def test_what_two_tabs_changed_at_once_is_there_twice_and_ours_goes_on_under_its_new_id() -> None:
    storage, ours = BrowserStorage(), asked()
    old = ours.id
    theirs = ours.model_copy(deep=True)
    storage.save(ours)
    before = snapshot(
        storage, theirs, ours.model_copy(update={"id": "c0ffee"}), moved={old: "c0ffee"}, sequence=1
    )
    ours.ask("second")
    storage.save(ours)
    assert storage.receive(before) == {old: "c0ffee"}
    assert len(storage.conversations[old].messages) == 1
    assert storage.conversations["c0ffee"] is ours and len(ours.messages) == 2
    assert sent(storage)[-1]["conversation"]["id"] == "c0ffee"
    assert storage.outgoing()["moves"] == [old]
    assert storage.receive(before) == {} and storage.conversations[old].id == old
