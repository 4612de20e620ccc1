"""Sign-in, when the app can be reached from other machines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.conftest import Chat
from tests.browser.service import KEY, Service, fetch
from tests.support.waiting import wait_for


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
