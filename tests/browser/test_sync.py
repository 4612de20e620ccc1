"""Conversations that follow their owner across devices, as two browsers see it, and the server's disk."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.chat_page import Chat
from tests.browser.service import KEY, Service, whole
from tests.support.waiting import PATIENCE, wait_for

ANN = "sk-ann-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
BOB = "sk-bob-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
QUESTION = "Where is the hidden door?"
SWITCH = "Sync conversations across my devices"
Device = Callable[[str], Chat]


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    (folder / "keys.yaml").write_text(f"ann: {ANN}\nbob: {BOB}\n")
    with whole(folder, BIND_ADDRESS="0.0.0.0", KEYS_FILE=str(folder / "keys.yaml")) as running:
        yield running


@pytest.fixture
def device(service: Service, browser: Browser) -> Iterator[Device]:
    """A function that signs in on another device with this key."""
    contexts = []

    def open_one(key: str) -> Chat:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}))
        contexts[-1].set_default_timeout(PATIENCE * 1000)
        chat = Chat(contexts[-1].new_page(), service.url("ui"))
        sign_in(chat, key)
        return chat

    yield open_one
    for context in contexts:
        context.close()
    for path in stored(service):
        path.unlink()


def sign_in(chat: Chat, key: str) -> None:
    chat.page.goto(chat.url)
    chat.page.get_by_label("Your team's key").fill(key)
    chat.page.get_by_role("button", name="Sign in").click()
    chat.input.wait_for()
    chat.open()


def stored(service: Service) -> list[Path]:
    """The files that are complete."""
    found = (service.folder / "data" / "sync").rglob("*")
    return [path for path in found if path.is_file() and path.suffix != ".new"]


def listed(chat: Chat) -> Locator:
    return chat.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")


def synced(chat: Chat) -> None:
    expect(chat.page.locator(".synced")).to_have_text(re.compile("^Synced at "))


def switch(chat: Chat) -> None:
    chat.button("Settings").click()
    chat.page.get_by_text(SWITCH).click()
    chat.page.keyboard.press("Escape")


def ask(chat: Chat, question: str, turns: int = 1) -> None:
    chat.ask(question)
    chat.answered(turns)


def reload(chat: Chat) -> None:
    chat.page.reload()
    chat.input.wait_for()
    synced(chat)


def test_conversations_follow_their_owner_and_nobody_else(service: Service, device: Device) -> None:
    desk = device(ANN)
    ask(desk, QUESTION)
    assert not (service.folder / "data" / "sync").exists()  # it is off
    switch(desk)
    synced(desk)
    wait_for(lambda: len(stored(service)) == 1, "it was not stored")

    phone = device(ANN)
    expect(listed(phone)).to_have_count(0)
    switch(phone)
    listed(phone).get_by_text(QUESTION).click()
    expect(phone.messages.first).to_contain_text(QUESTION)
    expect(phone.messages).to_have_count(2)
    ask(phone, "And the other one?", 2)
    synced(phone)

    other = device(BOB)
    switch(other)
    synced(other)
    expect(listed(other)).to_have_count(0)

    before = [path.read_bytes() for path in stored(service)]
    reload(desk)
    listed(desk).get_by_text(QUESTION).click()
    expect(desk.messages).to_have_count(4)
    expect(desk.messages.nth(2)).to_contain_text("And the other one?")
    assert [path.read_bytes() for path in stored(service)] == before  # nothing has changed for it

    (conversation,) = re.findall(r"c=([0-9a-z]+)", desk.page.url)
    words = ["hidden door", "the other one", ANN, conversation]
    for path in stored(service):
        assert not any(word.encode() in path.read_bytes() or word in str(path) for word in words)
    for log in service.folder.glob("*.log"):
        if log.stem in ("router", "ui"):
            assert not any(word in log.read_text() for word in words[:3])

    desk.button("More").click()
    desk.page.get_by_role("button", name="Delete", exact=True).last.click()
    expect(listed(desk)).to_have_count(0)
    wait_for(lambda: [path.read_bytes() for path in stored(service)] != before, "the deletion was not stored")
    reload(phone)
    expect(listed(phone)).to_have_count(0)
    reload(desk)
    expect(listed(desk)).to_have_count(0)
    assert len(stored(service)) == 1


def test_where_both_devices_went_on_both_are_kept(service: Service, device: Device) -> None:
    desk, phone = device(ANN), device(ANN)
    ask(desk, QUESTION)
    switch(desk)  # only now, so that its answer is stored with it
    wait_for(lambda: len(stored(service)) == 1, "it was not stored")
    switch(phone)
    listed(phone).get_by_text(QUESTION).click()
    phone.answered()
    phone.page.route("**/sync**", lambda route: route.abort())
    ask(phone, "Asked on the phone", 2)
    expect(phone.page.get_by_role("alert").get_by_text("cannot be reached")).to_be_visible()
    before = [path.read_bytes() for path in stored(service)]
    ask(desk, "Asked at the desk", 2)
    wait_for(lambda: [path.read_bytes() for path in stored(service)] != before, "it was not stored again")
    phone.page.unroute("**/sync**")
    reload(phone)
    expect(listed(phone)).to_have_count(2)
    wait_for(lambda: len(stored(service)) == 2, "the copy was not stored")
    reload(desk)
    expect(listed(desk)).to_have_count(2)
    for chat in (desk, phone):
        listed(chat).get_by_text(f"{QUESTION} (other device)").click()
        expect(chat.messages.nth(2)).to_contain_text("Asked on the phone")
        listed(chat).get_by_text(QUESTION, exact=True).click()
        expect(chat.messages.nth(2)).to_contain_text("Asked at the desk")


def test_a_damaged_copy_is_replaced_by_what_the_device_has(service: Service, device: Device) -> None:
    desk = device(ANN)
    switch(desk)
    ask(desk, QUESTION)
    synced(desk)
    wait_for(lambda: len(stored(service)) == 1, "it was not stored")
    (file,) = stored(service)
    file.write_bytes(b"x" * 100)
    reload(desk)
    expect(listed(desk)).to_have_count(1)
    wait_for(lambda: file.read_bytes() != b"x" * 100, "it was not stored again")
    phone = device(ANN)
    switch(phone)
    expect(listed(phone)).to_have_count(1)


def test_copies_are_deleted_on_request_and_the_device_keeps_its_own(service: Service, device: Device) -> None:
    desk = device(ANN)
    switch(desk)
    ask(desk, QUESTION)
    wait_for(lambda: len(stored(service)) == 1, "it was not stored")
    synced(desk)
    switch(desk)
    expect(desk.page.locator(".synced")).to_have_text("")
    desk.button("Settings").click()
    expect(desk.page.get_by_text("They are stored only on this device.")).to_be_visible()
    desk.page.get_by_role("button", name="Delete the copies on the server").click()
    wait_for(lambda: not stored(service), "they were not deleted")
    reload_without_sync(desk)
    expect(listed(desk)).to_have_count(1)
    assert not stored(service)
    switch(desk)
    wait_for(lambda: len(stored(service)) == 1, "it was not stored again")


def reload_without_sync(chat: Chat) -> None:
    chat.page.reload()
    chat.input.wait_for()


def test_the_shared_key_does_not_sync_and_a_restart_is_told(service: Service, device: Device) -> None:
    master = device(KEY)
    master.button("Settings").click()
    expect(master.page.get_by_role("switch", name=SWITCH)).to_be_disabled()
    expect(master.page.get_by_text("the service's key, which is shared")).to_be_visible()
    desk = device(ANN)
    switch(desk)
    synced(desk)
    service.kill("ui")
    service.start("ui")
    service.ready("coder", "general")
    desk.open()
    expect(desk.page.get_by_role("alert").get_by_text("The app has restarted")).to_be_visible()
    desk.button("Sign out").click()
    desk.page.get_by_label("Your team's key").wait_for()
    sign_in(desk, ANN)
    synced(desk)
