import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support import ROOT
from tests.support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_PICTURES = ROOT / "reports" / "browser"
_OPEN: dict[Page, "Chat"] = {}


class Chat:
    """What people do on the chat page."""

    def __init__(self, page: Page, url: str, titles: bool = False) -> None:
        self.page = page
        chosen = f'{{"titles": {str(titles).lower()}}}'  # off, so that engines get only what the tests ask
        page.add_init_script(f"try {{ localStorage['duoserve.preferences'] ??= '{chosen}' }} catch {{}}")
        self.url = url
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(f"{error.message}\n{error.stack}"))
        page.on("crash", lambda _: self.complaints.append("the page crashed"))
        _OPEN[page] = self
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(url)

    def open(self, path: str = "/") -> "Chat":
        self.page.goto(self.url + path)
        self.input.wait_for()
        self.page.get_by_text("Import, export").wait_for(state="attached")  # what the browser keeps is here
        self.page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
        return self

    @property
    def input(self) -> Locator:
        return self.page.get_by_test_id("stChatInputTextArea")

    @property
    def messages(self) -> Locator:
        return self.page.get_by_test_id("message")

    def ask(self, text: str) -> None:
        self.input.fill(text)
        self.input.press("Enter")

    def button(self, name: str) -> Locator:
        """A button by its name; its keyboard shortcut is no part of that."""
        return self.page.get_by_role("button", name=re.compile(rf"^(■ )?{re.escape(name)}( Shortcut .*)?$"))

    def choose_model(self, name: str) -> None:
        self.page.get_by_role("button", name=re.compile("^Model: ")).click()
        self.page.get_by_role("option", name=re.compile(rf"^{re.escape(name)}\b")).click()
        expect(
            self.page.get_by_role("button", name=re.compile(rf"^Model: {re.escape(name)}\b"))
        ).to_be_visible()

    def below(self) -> float:
        """How many pixels of the conversation are below what the window shows."""
        found: float = self.page.evaluate(
            "() => { const all = document.querySelectorAll('[data-testid=stAppScrollToBottomContainer], "
            "[data-testid=stMain]'); return Math.max(...[...all].map((each) => "
            "each.scrollHeight - each.clientHeight - each.scrollTop)); }"
        )
        return found

    def answered(self, turns: int = 1, seconds: float = PATIENCE) -> None:
        """Wait until the last answer is complete."""
        expect(self.messages).to_have_count(2 * turns)
        expect(self.messages.last.get_by_text("tokens/s")).to_be_visible(timeout=seconds * 1000)
        expect(self.button("Stop")).to_have_count(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Keep what the open pages showed when a test failed, in reports/browser."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if call.when == "call" and report.failed and browser:
        _PICTURES.mkdir(parents=True, exist_ok=True)
        pages = [page for context in browser.contexts for page in context.pages]
        for number, page in enumerate(pages):
            name = re.sub(r"\W+", "-", item.name)
            page.screenshot(path=_PICTURES / f"{name}-{number}.png")
            if chat := _OPEN.get(page):
                report.sections.append((f"errors of page {number}", "\n".join(chat.complaints)))
    return report


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium here (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        expect.set_options(timeout=PATIENCE * 1000)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser with nothing in its storage."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(PATIENCE * 1000)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")
