"""The usage page, for whoever has the service's key and for whoever has another."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.service import KEY, Service, fetch
from tests.support.waiting import wait_for

ANN = "sk-ann-9f8e7d6c5b4a39281706f5e4d3c2b1a0"


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    (folder / "keys.yaml").write_text(f"ann: {ANN}\n")
    log = folder / "data" / "logs" / "requests.jsonl"
    log.parent.mkdir(parents=True)
    usual = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "alias": "coder", "tool": "zed"}
    counts = {"status": 200, "prompt_tokens": 1234, "completion_tokens": 56, "cached_tokens": 617}
    lines = [usual | counts | {"client": name, "key": name} for name in ("ann", "ann", "bob")]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    running = Service(folder, BIND_ADDRESS="0.0.0.0", KEYS_FILE=str(folder / "keys.yaml"))
    try:
        for name in ("router", "ui"):
            running.start(name)
        for name, path in (("router", "/health"), ("ui", "/_stcore/health")):
            wait_for(partial(fetch, f"{running.url(name)}{path}"), f"see {folder}/{name}.log", 600)
        yield running
    finally:
        running.stop()


def use(service: Service, context: BrowserContext, key: str) -> Page:
    """The page, after signing in with this key."""
    page = context.new_page()
    page.goto(service.url("ui"))
    page.get_by_label("Your team's key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_test_id("stChatInputTextArea").wait_for()
    page.goto(f"{service.url('ui')}/usage")
    expect(page.get_by_role("cell", name="ann", exact=True)).to_be_visible()
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_the_services_key_sees_everyone(
    service: Service, context: BrowserContext, tmp_path: Path, width: int
) -> None:
    page = use(service, context, KEY)
    page.set_viewport_size({"width": width, "height": 800})
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="ann", exact=True))
    expect(row).to_contain_text("2,468")
    expect(page.get_by_role("cell", name="bob", exact=True)).to_be_visible()
    expect(page.locator("[aria-roledescription=visualization]")).to_be_visible()
    page.screenshot(path=tmp_path / "use.png")
    # A table that is wider than the screen is scrolled by itself.
    row.get_by_role("cell").last.scroll_into_view_if_needed()
    expect(row.get_by_role("cell").last).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    serious = [
        each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")
    ]
    assert not serious


def test_another_key_sees_itself_and_not_the_services_key(service: Service, context: BrowserContext) -> None:
    page = use(service, context, ANN)
    expect(page.get_by_text("You see only the usage of your key, ann.")).to_be_visible()
    assert "bob" not in page.content()
    page.get_by_role("link", name="About this service").click()
    expect(page.get_by_text("this address and your own key")).to_be_visible()
    expect(page.get_by_text("Show the key")).to_have_count(0)
