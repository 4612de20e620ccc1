"""Sign-in, when the app can be reached from other machines."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.chat_page import Chat
from tests.browser.service import KEY, Service, fetch, whole
from tests.support.request_log import records
from tests.support.waiting import wait_for
from ui import signin
from ui.conversation import Conversation, Message, export

ANN = "sk-ann-9f8e7d6c5b4a39281706f5e4d3c2b1a0"


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    running = Service(folder, BIND_ADDRESS="0.0.0.0")  # no router: nothing is asked of it
    try:
        running.start("ui")
        wait_for(lambda: fetch(f"{running.url('ui')}/_stcore/health"), "the chat app did not start")
        yield running
    finally:
        running.stop()


def test_sign_in_out_and_in_every_tab(service: Service, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(service.url("ui"))
    expect(page.get_by_label("Your team's key")).to_be_focused()
    assert not Axe().run(page).response["violations"]
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    page.get_by_label("Your team's key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    chat = Chat(page, service.url("ui"))
    chat.input.wait_for()
    other = Chat(context.new_page(), service.url("ui")).open()
    assert KEY not in page.content()
    (cookie,) = [each for each in context.cookies() if each["name"] == "duoserve_session"]
    assert cookie["httpOnly"] and KEY not in cookie["value"]
    chat.button("Sign out").click()
    expect(page.get_by_label("Your team's key")).to_be_visible()
    other.button("New chat").click()
    expect(other.page.get_by_label("Your team's key")).to_be_visible()
    context.add_cookies([{**cookie}])  # type: ignore[typeddict-item]
    page.goto(service.url("ui"))
    expect(page.get_by_label("Your team's key")).to_be_visible()


@pytest.fixture
def with_router(tmp_path: Path, browser: Browser) -> Iterator[Service]:
    (tmp_path / "keys.yaml").write_text(f"ann: {ANN}\n")
    with whole(tmp_path, BIND_ADDRESS="0.0.0.0", KEYS_FILE=str(tmp_path / "keys.yaml")) as running:
        yield running


def test_questions_count_for_whoever_signed_in_until_their_key_ends(
    with_router: Service, context: BrowserContext
) -> None:
    service = with_router

    def replace(key: str) -> None:
        read = "read the keys again"
        before = (service.folder / "router.log").read_text().count(read)
        entry = f"ann: {{key: {key}, requests_per_minute: 1}}\n"
        (service.folder / "keys.yaml").write_text(entry)
        wait_for(
            lambda: (service.folder / "router.log").read_text().count(read) > before, "the key is replaced"
        )

    def sign_in(key: str) -> Chat:
        page.get_by_label("Your team's key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        chat = Chat(page, service.url("ui"))
        chat.input.wait_for()  # before that, going there would withdraw the form
        return chat.open()

    page = context.new_page()
    page.goto(service.url("ui"))
    chat = sign_in(ANN)
    chat.ask("Where is the hidden door?")
    chat.answered()
    (record,) = wait_for(lambda: records(service.folder), "the request is in the log")
    assert record["client"] == record["key"] == "ann"

    replace(ANN[::-1])
    chat.ask("And the other one?")
    page.wait_for_url("**/sign-in")
    expect(page.get_by_role("alert")).to_have_text(signin.KEY_ENDED)
    assert not Axe().run(page).response["violations"]
    chat = sign_in(ANN[::-1])
    page.get_by_test_id("stSidebar").get_by_text("Where is the hidden door?").click()
    expect(chat.messages).to_have_count(4)
    expect(chat.messages.nth(2)).to_contain_text("And the other one?")
    chat.button("Try again").click()
    chat.answered(2)
    chat.ask("And a third?")
    expect(chat.messages.last).to_contain_text("The limit of 1 requests per minute is reached.")

    replace(ANN)
    page.goto(f"{service.url('ui')}/usage")
    expect(page.get_by_role("alert")).to_have_text(signin.KEY_ENDED)


def own_address() -> str:
    """An address of this machine other than loopback, as browsers on other machines use it."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return each.address
    pytest.skip("this machine has no network")


def test_everything_can_be_copied_on_plain_http(
    service: Service, context: BrowserContext, tmp_path: Path
) -> None:
    url = f"http://{own_address()}:{service.ports['ui']}"
    page = context.new_page()
    page.goto(url)
    assert not page.evaluate("window.isSecureContext")
    page.get_by_label("Your team's key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    chat = Chat(page, url)
    chat.input.wait_for()
    chat.open()
    conversation = Conversation(title="Code")
    conversation.ask("A question")
    conversation.answered(
        Message(role="assistant", text="See:\n\n```\nx = ':material/home:'\n```", model="coder")
    )
    exported = tmp_path / "code.json"
    exported.write_text(export([conversation]))
    chat.button("Import, export").click()
    page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(exported)
    expect(page.get_by_text("1 imported.")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_test_id("stSidebar").get_by_text("Code", exact=True).click()
    expect(chat.messages).to_have_count(2)

    def pasted() -> str:
        """What is in the clipboard; it is put somewhere else afterwards."""
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<textarea id=paste></textarea>')")
        page.locator("#paste").focus()
        page.keyboard.press("Control+V")
        text = page.locator("#paste").input_value()
        page.evaluate("document.querySelector('#paste').remove()")
        return text

    chat.messages.first.get_by_role("button", name="Copy the question").click()
    expect(chat.messages.first.get_by_text("Copied")).to_be_visible()
    assert pasted() == "A question"
    chat.messages.last.get_by_role("button", name="Copy the answer").click()
    expect(chat.messages.last.get_by_text("Copied")).to_be_visible()
    assert pasted() == conversation.messages[1].text
    chat.messages.last.locator(".code").get_by_role("button", name="Copy").click()
    wait_for(lambda: pasted() == "x = ':material/home:'", "the code was not copied")
    page.goto(f"{url}/about")
    address = page.get_by_test_id("stCode").first
    address.hover()
    address.get_by_role("button").click()
    wait_for(lambda: re.fullmatch(r"http://.*/v1", pasted()), "the address was not copied")
