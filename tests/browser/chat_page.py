"""The chat page, as people and tests use it."""

import re
import shutil
from pathlib import Path
from typing import ClassVar

from playwright.sync_api import Locator, Page, expect

from tests.support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium")


class Chat:
    """What people do on the chat page."""

    on: ClassVar[dict[Page, "Chat"]] = {}

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
        Chat.on[page] = self
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

    def attach(self, *files: Path) -> None:
        """Attach files to the next question, which cannot be sent before they are uploaded."""
        self.page.locator('[data-testid="stChatInput"] input[type=file]').set_input_files(files)
        expect(self.page.get_by_test_id("stFileChip")).to_have_count(len(files))
        expect(self.page.get_by_test_id("stChatInputSubmitButton")).to_be_enabled()

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
