"""The chat app in a real browser, before the real router and mock engines that do what a test needs."""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Route, expect

from tests.browser.chat_page import Chat
from tests.browser.service import KEY, Service, fetch, whole
from tests.support import ROOT
from tests.support.waiting import wait_for
from ui.conversation import Conversation, Message, export

Open = Callable[[BrowserContext], Chat]
WORDS = "first case def item error token next write list name close map from value index stop test self"


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    with whole(folder, MAX_BODY_MB="1", QUEUE_MAX="2") as running:
        yield running


@pytest.fixture
def open_chat(service: Service, context: BrowserContext) -> Iterator[Open]:
    service.reset()
    opened: list[Chat] = []

    def open_in(context: BrowserContext) -> Chat:
        opened.append(Chat(context.new_page(), service.url("ui")))
        return opened[-1].open()

    yield open_in
    for chat in opened:
        assert chat.foreign == [], "the page asked for something elsewhere"
        assert chat.page.is_closed() or "Traceback" not in chat.page.content()


@pytest.fixture
def chat(open_chat: Open, context: BrowserContext) -> Chat:
    return open_chat(context)


def mock(**knobs: Any) -> str:
    """A question that tells the mock engine how to answer it."""
    return f"Please. mock:{json.dumps(knobs)}"


def last_body(service: Service, model: str = "coder") -> Any:
    return service.engines[model].requests()[-1]["body"]


def test_the_answer_grows_on_screen_while_it_is_made(chat: Chat, service: Service) -> None:
    chat.ask(mock(text=WORDS, itl_ms=100))
    expect(chat.messages).to_have_count(2)
    lengths = [
        wait_for(
            lambda seen=seen: chat.messages.last.inner_text().count(" ") > seen and seen + 1, "it stopped"
        )
        for seen in range(3, 12, 4)
    ]
    assert lengths and service.engines["coder"].state()["running"] == 1
    expect(chat.messages.last).to_contain_text("index stop test self")
    chat.answered()
    expect(chat.messages.last).to_contain_text(
        re.compile(r"coder · first token \d\.\d\d s · \d+ tokens/s · 18 tokens")
    )


LINES = "\n\n".join(f"line {number}." for number in range(60))
NEAR = 60  # pixels: a line or two, and what the page scrolls meanwhile


def at_the_end(chat: Chat) -> None:
    wait_for(lambda: chat.below() < NEAR, "the end is out of view")


def test_the_page_follows_a_growing_answer_unless_one_has_scrolled_up(chat: Chat) -> None:
    jump = chat.page.get_by_role("button", name="Jump to latest")
    chat.ask(mock(text=LINES, itl_ms=30, stall_at=100, stall_ms=3000))
    for number in (20, 30, 40):
        expect(chat.messages.last).to_contain_text(f"line {number}.")
        at_the_end(chat)
    chat.page.mouse.move(700, 300)
    chat.page.mouse.wheel(0, -500)
    expect(jump).to_be_visible()
    above = chat.messages.first.bounding_box()
    chat.answered()
    assert chat.messages.first.bounding_box() == above, "what one reads moved"
    jump.click()
    at_the_end(chat)
    expect(jump).to_be_hidden()
    chat.page.wait_for_timeout(500)  # nothing tells that the page follows again
    chat.ask(mock(text=LINES))
    chat.answered(2)
    at_the_end(chat)


def test_a_conversation_opens_at_its_end(chat: Chat) -> None:
    chat.ask(mock(text=LINES))
    chat.answered()
    chat.button("New chat").first.click()
    expect(chat.messages).to_have_count(0)
    chat.page.get_by_test_id("stSidebar").get_by_text("Please").click()
    expect(chat.messages.last).to_contain_text("line 59.")
    at_the_end(chat)
    chat.page.reload()
    expect(chat.messages.last).to_contain_text("line 59.")
    at_the_end(chat)


def test_nothing_but_the_conversation_is_there_while_an_answer_grows(chat: Chat) -> None:
    def growing(answer: str) -> str:
        return mock(text=f"{answer} answer " + "word " * 2000, itl_ms=50)

    def stop() -> None:
        assert chat.button("Stop").count(), "it has ended before it was looked at"
        chat.button("Stop").click()
        expect(chat.messages.last).to_contain_text("Stopped.")

    chat.ask(growing("one first"))
    expect(chat.messages.last).to_contain_text("one first answer")
    expect(chat.page.get_by_text("What are you working on?")).to_have_count(0)
    expect(chat.page.locator(".st-key-examples")).to_have_count(0)
    stop()
    chat.ask(growing("one second"))
    expect(chat.messages.last).to_contain_text("one second answer")
    expect(chat.page.get_by_text("first token")).to_have_count(1)
    expect(chat.button("Regenerate")).to_have_count(0)
    stop()
    chat.messages.first.get_by_role("button", name="Edit").click()
    chat.page.get_by_label("Edit the question").fill(growing("one edited"))
    chat.button("Ask again").click()
    expect(chat.messages.nth(1)).to_contain_text("one edited answer")
    expect(chat.messages).to_have_count(2)
    expect(chat.page.get_by_text("first token")).to_have_count(0)
    expect(chat.button("Cancel")).to_have_count(0)
    stop()
    chat.button("Regenerate").click()
    expect(chat.button("Stop")).to_be_visible()
    expect(chat.button("Regenerate")).to_have_count(0)
    stop()


def test_code_is_drawn_and_copied_as_it_is(chat: Chat, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    samples = [r"\[(\w+)\] \((\d+)\)", "${f%.log} costs $5", "![x](y) :red[z] :smile: :material/home:"]
    blocks = "\n".join(samples)
    text = (
        "    "
        + blocks.replace("\n", "\n    ")
        + "\n\n- a list\n\n  ```\n  "
        + blocks.replace("\n", "\n  ")
        + "\n  ```\n\n> ```\n> "
        + blocks.replace("\n", "\n> ")
        + "\n> ```\n\n:smile: and :material/home: are text"
    )
    chat.ask(mock(text=text))
    chat.answered()
    answer = chat.messages.last
    drawn = answer.locator("pre code")
    expect(drawn).to_have_count(3)
    for number in range(3):
        assert drawn.nth(number).text_content() == blocks
        answer.locator(".code").nth(number).get_by_role("button", name="Copy").click()
        wait_for(lambda: chat.page.evaluate("navigator.clipboard.readText()") == blocks, "altered")
        chat.page.evaluate("navigator.clipboard.writeText('')")
    assert ":smile: and :material/home: are text" in answer.inner_text()


def test_stop_frees_the_engine_and_keeps_what_came(chat: Chat, service: Service) -> None:
    chat.ask(mock(completion_tokens=2000, itl_ms=20))
    expect(chat.messages.last).to_contain_text("error")
    chat.button("Stop").click()
    wait_for(lambda: service.engines["coder"].state()["running"] == 0, "the engine works on")
    assert service.engines["coder"].requests()[-1]["state"] == "aborted"
    expect(chat.messages.last).to_contain_text("Stopped.")
    expect(chat.messages.last).to_contain_text("error")
    chat.button("Continue").click()
    wait_for(lambda: service.engines["coder"].state()["running"], "it did not go on")
    assert last_body(service)["continue_final_message"] is True
    expect(chat.button("Stop")).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(chat.messages.last).to_contain_text("Stopped.")


def test_no_stop_is_lost_while_the_browser_keeps_the_question(chat: Chat, service: Service) -> None:
    """The key is pressed as soon as there is a Stop: about when the storage tells what it has kept."""
    chat.ask(mock(completion_tokens=2000, itl_ms=20))
    expect(chat.messages.last).to_contain_text("error")
    for number in range(16):
        if number:
            chat.button("Continue").click()
        expect(chat.button("Stop")).to_be_visible()
        chat.page.keyboard.press("Escape")
        expect(chat.messages.last).to_contain_text("Stopped.")


def test_a_stop_that_does_not_get_through_can_be_repeated(chat: Chat, service: Service) -> None:
    """And a Stop that was pressed is gone before the service has heard of it: the next answer has its own."""
    held: list[Route] = []
    chat.page.route("**/answers/*/stop", lambda route: held.append(route), times=1)
    chat.ask(mock(completion_tokens=2000, itl_ms=20))
    chat.button("Stop").click()
    expect(chat.button("Stop")).to_have_count(0)
    wait_for(lambda: chat.page.evaluate("true") and held, "the browser asked for the end")
    held[0].abort()
    expect(chat.button("Stop")).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(chat.messages.last).to_contain_text("Stopped")


def test_stop_before_the_first_token_frees_the_engine_too(chat: Chat, service: Service) -> None:
    chat.ask(mock(ttft_ms=3_600_000))
    wait_for(lambda: service.engines["coder"].state()["running"], "nothing was asked")
    chat.button("Stop").click()
    wait_for(lambda: service.engines["coder"].state()["running"] == 0, "the engine works on")
    expect(chat.messages.last).to_contain_text("Stopped before the answer began.")


def test_an_answer_outlives_its_tab(open_chat: Open, context: BrowserContext, service: Service) -> None:
    chat = open_chat(context)
    chat.ask(mock(completion_tokens=300, itl_ms=40))
    expect(chat.messages.last).to_contain_text("error")
    chat.page.close()
    wait_for(lambda: service.engines["coder"].state()["running"] == 0, "it goes on for ever")
    assert service.engines["coder"].requests()[-1]["state"] == "finished"
    later = open_chat(context)
    later.page.get_by_test_id("stSidebar").get_by_text("Please").click()
    later.answered()
    expect(later.messages.last).to_contain_text("300 tokens")


class Network:
    """Between a browser and the app; it can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept none until `down` is false again."""
        self.down = True
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                if self.down:
                    browser.close()
                    continue
                app = socket.create_connection(("127.0.0.1", self._to))
                self._open += [browser, app]
                for pair in ((browser, app), (app, browser)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def network(service: Service) -> Iterator[Network]:
    between = Network(service.ports["ui"])
    yield between
    between.close()


@pytest.mark.parametrize("seconds", [2, 8])
def test_a_cut_of_the_network_costs_nothing(
    service: Service, context: BrowserContext, network: Network, seconds: int
) -> None:
    service.reset()
    chat = Chat(context.new_page(), f"http://127.0.0.1:{network.port}").open()
    chat.ask(mock(completion_tokens=400, itl_ms=40))
    expect(chat.messages.last).to_contain_text("error")
    network.cut()
    chat.page.wait_for_timeout(seconds * 1000)
    expect(chat.page.get_by_text("Connection lost. Reconnecting")).to_be_visible()
    expect(chat.page.get_by_role("dialog")).to_have_count(0)  # the chat can still be read
    expect(chat.messages.last).to_contain_text("error")
    network.down = False
    chat.answered(seconds=60)
    expect(chat.page.get_by_text("Connection lost. Reconnecting")).to_have_count(0)
    expect(chat.messages.last).to_contain_text("400 tokens")
    assert len(service.engines["coder"].requests()) == 1


def test_regenerate_edit_delete_and_undo(chat: Chat, service: Service) -> None:
    chat.ask("What is one?")
    chat.answered()
    chat.ask("What is two?")
    chat.answered(2)
    chat.button("Regenerate").click()
    wait_for(lambda: len(service.engines["coder"].requests()) == 3, "nothing was asked again")
    chat.answered(2)
    chat.messages.first.get_by_role("button", name="Edit").click()
    expect(chat.page.get_by_label("Edit the question")).to_be_focused()
    chat.page.get_by_label("Edit the question").fill("What is three?")
    chat.page.keyboard.press("Control+Enter")
    chat.answered(1)
    assert [message["content"] for message in last_body(service)["messages"]] == ["What is three?"]
    chat.button("Undo").click()
    expect(chat.messages).to_have_count(4)
    expect(chat.messages.first).to_contain_text("What is one?")
    chat.messages.nth(2).get_by_role("button", name="Delete").click()
    expect(chat.messages).to_have_count(2)


@pytest.mark.parametrize(
    ("platform", "keys", "told"),
    [("Linux x86_64", "Control+Enter", "Ctrl+Enter sends"), ("MacIntel", "Meta+Enter", "⌘ Enter sends")],
)
def test_an_edited_question_is_sent_by_keys(
    open_chat: Open, context: BrowserContext, service: Service, platform: str, keys: str, told: str
) -> None:
    context.add_init_script(f"Object.defineProperty(navigator, 'platform', {{get: () => '{platform}'}})")
    chat = open_chat(context)
    chat.ask("What is one?")
    chat.answered()
    chat.messages.first.get_by_role("button", name="Edit").click()
    editor = chat.page.get_by_label("Edit the question")
    expect(editor).to_be_focused()
    expect(chat.page.get_by_text(told)).to_be_visible()
    chat.page.keyboard.press("Enter")  # begins a line, at the end
    chat.page.keyboard.type("And two?")
    expect(editor).to_have_value("What is one?\nAnd two?")
    chat.page.keyboard.press(keys)
    wait_for(lambda: len(service.engines["coder"].requests()) == 2, "it was not sent")
    expect(editor).to_have_count(0)
    chat.answered()
    assert [each["content"] for each in last_body(service)["messages"]] == ["What is one?\nAnd two?"]


def test_the_chosen_model_and_the_options_are_used(chat: Chat, service: Service) -> None:
    chat.choose_model("general")
    chat.button("Options").click()
    chat.page.get_by_label("System prompt").fill("Answer in French.")
    chat.page.get_by_role("spinbutton", name="Max response length (tokens)").fill("64")
    chat.page.keyboard.press("Tab")
    chat.page.get_by_text("Custom sampling").click()
    expect(chat.page.get_by_text("Temperature", exact=True)).to_be_visible()
    chat.page.keyboard.press("Escape")
    chat.ask("Hello")
    chat.answered()
    body = last_body(service, "general")
    assert body["messages"][0] == {"role": "system", "content": "Answer in French."}
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (64, 0.7, 0.95)
    assert KEY not in chat.page.content()


def test_conversations_survive_a_reload_and_stay_apart(
    open_chat: Open, context: BrowserContext, browser: Browser
) -> None:
    chat = open_chat(context)
    chat.ask("What is a monad?")
    chat.answered()
    chat.button("New chat").first.click()
    expect(chat.messages).to_have_count(0)
    chat.ask("What is a functor?")
    chat.answered()
    chat.page.reload()
    expect(chat.messages.first).to_contain_text("What is a functor?")
    chat.page.get_by_test_id("stSidebar").get_by_text("What is a monad?").click()
    expect(chat.messages.first).to_contain_text("What is a monad?")
    stranger = browser.new_context()
    other = open_chat(stranger)
    other.page.wait_for_timeout(500)
    expect(other.page.get_by_text("What is a monad?")).to_have_count(0)
    stranger.close()


def test_an_answer_survives_a_reload(chat: Chat, service: Service) -> None:
    chat.ask(mock(completion_tokens=150, itl_ms=40))
    expect(chat.messages.last).to_contain_text("error")
    chat.page.reload()
    chat.answered()
    (request,) = service.engines["coder"].requests()
    assert request["state"] == "finished" and request["chunks"] >= 150


def test_two_tabs_do_not_overwrite_each_other(open_chat: Open, context: BrowserContext) -> None:
    one = open_chat(context)
    one.ask("Shared question")
    one.answered()
    two = Chat(context.new_page(), one.url)
    two.open(f"/?{one.page.url.split('?')[1]}")
    expect(two.messages).to_have_count(2)
    one.ask(mock(text="from the first tab", itl_ms=150))
    two.ask(mock(text="from the second tab", itl_ms=150))
    for tab in (one, two):  # whichever saved first, the other's version is kept beside it, or follows it
        expect(tab.messages.last.get_by_text("tokens/s")).to_be_visible()
        expect(tab.button("Stop")).to_have_count(0)
    conversations = one.page.get_by_test_id("stSidebar").get_by_text(re.compile("Shared question"))
    expect(conversations).to_have_count(2)
    one.page.reload()
    expect(conversations).to_have_count(2)
    texts = ""
    for title in ("Shared question", "Shared question (other tab)"):
        one.button("New chat").click()
        expect(one.page.get_by_text("What are you working on?")).to_be_visible()
        one.page.get_by_test_id("stSidebar").get_by_text(title, exact=True).click()
        expect(one.messages.first).to_contain_text("Shared question")
        expect(one.messages.last.get_by_text("tokens/s")).to_be_visible()
        texts += "\n".join(one.messages.all_inner_texts())
    for answer in ("from the first tab", "from the second tab"):
        assert re.search(rf"^{answer}$", texts, re.M)


def test_a_tab_s_conversations_can_end_with_it(open_chat: Open, context: BrowserContext) -> None:
    chat = open_chat(context)
    chat.button("Settings").click()
    chat.page.get_by_text("Until this tab is closed").click()
    chat.page.keyboard.press("Escape")
    chat.ask("A secret plan")
    chat.answered()
    chat.page.reload()
    expect(chat.messages.first).to_contain_text("A secret plan")
    chat.page.close()
    later = open_chat(context)
    later.page.wait_for_timeout(500)
    expect(later.page.get_by_text("A secret plan")).to_have_count(0)


def ask_apart(chat: Chat, *questions: str) -> None:
    """Each in a conversation of its own; an empty one is open afterwards."""
    for question in questions:
        chat.ask(question)
        chat.answered()
        chat.button("New chat").first.click()
        expect(chat.messages).to_have_count(0)


def test_rename_pin_delete_and_undo(chat: Chat) -> None:
    ask_apart(chat, "About apples", "About pears")
    sidebar = chat.page.get_by_test_id("stSidebar")
    sidebar.get_by_text("About apples").click()
    expect(chat.messages.first).to_contain_text("About apples")
    chat.button("More").click()
    chat.page.get_by_label("Title").fill("Fruit <b>notes</b> [x](javascript:alert(1))")
    chat.page.keyboard.press("Enter")
    expect(sidebar.get_by_text("Fruit <b>notes</b> [x](javascript:alert(1))")).to_be_visible()
    chat.button("Pin").click()
    expect(sidebar.get_by_text("Pinned")).to_be_visible()
    chat.page.keyboard.press("Escape")
    chat.button("More").click()
    chat.page.locator(".st-key-delete-conversation button").click()
    expect(sidebar.get_by_text("Fruit")).to_have_count(0)
    chat.button("Undo").click()
    expect(sidebar.get_by_text("Fruit")).to_be_visible()
    expect(chat.messages).to_have_count(2)


def test_conversations_are_found_as_one_types(chat: Chat) -> None:
    ask_apart(chat, "About apples", mock(text="An answer that names no fruit but pears, and <b>plums</b>."))
    rows = chat.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    search = chat.page.get_by_label("Search conversations")
    expect(rows).to_have_count(2)
    search.press_sequentially("PEARS plums")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("An answer that names no fruit but pears, and <b>plums</b>.")
    assert rows.locator("mark").all_inner_texts() == ["pears", "plums"]
    search.press_sequentially("x")
    expect(rows).to_have_count(0)
    expect(chat.page.get_by_text("No conversation contains all of these words.")).to_be_visible()
    search.press("Escape")
    expect(rows).to_have_count(2)
    search.fill("apple")
    expect(rows).to_have_count(1)
    search.press("Enter")
    expect(chat.messages.first).to_contain_text("About apples")


def test_the_server_sees_no_conversation_but_the_open_one(
    open_chat: Open, context: BrowserContext, service: Service
) -> None:
    chat = open_chat(context)
    ask_apart(chat, "About apples", "About pears")
    page = context.new_page()
    frames: list[str] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framesent",
            lambda frame: frames.append(
                frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
            ),
        ),
    )
    later = Chat(page, service.url("ui")).open()
    later.button("Settings").click()
    expect(later.page.get_by_text("The server sees the open one but stores none.")).to_be_visible()
    later.page.keyboard.press("Escape")
    later.page.get_by_label("Search conversations").fill("apples")
    rows = later.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    expect(rows).to_have_count(1)
    assert frames and not any("About" in frame for frame in frames)
    rows.get_by_text("About apples").first.click()
    expect(later.messages).to_have_count(2)
    assert any("About apples" in frame for frame in frames)
    assert not any("About pears" in frame for frame in frames)


def test_a_draft_stays_with_its_conversation(chat: Chat) -> None:
    ask_apart(chat, "About apples")
    chat.input.fill("a new question")
    chat.page.get_by_test_id("stSidebar").get_by_text("About apples").click()
    expect(chat.messages).to_have_count(2)
    expect(chat.input).to_have_value("")
    chat.input.fill("one more about apples")
    chat.page.reload()
    expect(chat.messages).to_have_count(2)
    expect(chat.input).to_have_value("one more about apples")
    chat.button("New chat").click()
    expect(chat.input).to_have_value("a new question")
    chat.page.go_back()
    expect(chat.input).to_have_value("one more about apples")
    chat.input.press("Enter")
    chat.answered(2)
    expect(chat.input).to_have_value("")
    chat.page.reload()
    chat.answered(2)
    expect(chat.input).to_have_value("")


# Types as soon as there is an input, before anything else of the page has run.
TYPE_AT_ONCE = """
const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
const typing = new MutationObserver(() => {
  const input = document.querySelector('[data-testid="stChatInputTextArea"]');
  if (!input) return;
  typing.disconnect();
  set.call(input, "typed at once");
  input.dispatchEvent(new Event("input", { bubbles: true }));
});
typing.observe(document, { childList: true, subtree: true });
"""


def test_what_is_typed_while_the_page_loads_stays(chat: Chat) -> None:
    chat.page.add_init_script(TYPE_AT_ONCE)
    chat.open()
    expect(chat.input).to_have_value("typed at once")
    chat.input.press("Enter")
    chat.answered()
    expect(chat.messages.first).to_contain_text("typed at once")
    chat.button("New chat").click()
    expect(chat.messages).to_have_count(0)
    chat.input.fill("from before")
    chat.page.wait_for_function("localStorage.getItem('duoserve.draft.new') === 'from before'")
    chat.open()
    expect(chat.input).to_have_value("from before\ntyped at once")


def test_days_are_those_of_the_user(browser: Browser, open_chat: Open, tmp_path: Path) -> None:
    context = browser.new_context(timezone_id="Pacific/Kiritimati")  # 14 hours ahead of UTC
    chat = open_chat(context)
    conversation = Conversation(title="Late at night")
    conversation.ask("Still awake?")
    there = chat.page.evaluate("new Date().setHours(0, 0, 0, 0)") / 1000
    conversation.updated = datetime.fromtimestamp(there - 60, UTC)  # of the same day in UTC, at most hours
    later = Conversation(title="Early in the morning")
    later.ask("Awake again?")
    later.updated = datetime.fromtimestamp(there + 60, UTC)
    exported = tmp_path / "nights.json"
    exported.write_text(export([conversation, later]))
    chat.button("Import, export").click()
    chat.page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(exported)
    expect(chat.page.get_by_text("2 imported.")).to_be_visible()
    groups = chat.page.get_by_role("navigation", name="Conversations").locator("section")
    expect(groups).to_have_text([re.compile("Today.*Early"), re.compile("Yesterday.*Late")])
    context.close()


def test_text_from_right_to_left_runs_so(chat: Chat) -> None:
    chat.ask(mock(text="שלום עולם\n\nHello world\n\n```\ncode\n```"))
    chat.answered()
    hebrew = chat.messages.last.get_by_text("שלום עולם")
    expect(hebrew).to_have_css("direction", "rtl")
    expect(chat.messages.last.get_by_text("Hello world")).to_have_css("direction", "ltr")
    expect(chat.messages.last.locator("pre")).to_have_css("direction", "ltr")
    chat.input.fill("שלום")
    expect(chat.input).to_have_css("direction", "rtl")


def test_export_and_import(chat: Chat, tmp_path: Path) -> None:
    chat.ask("Keep me")
    chat.answered()
    chat.button("More").click()
    with chat.page.expect_download() as download:
        chat.button("Export as Markdown").click()
    assert "# Keep me" in download.value.path().read_text()
    with chat.page.expect_download() as download:
        chat.button("Export as JSON").click()
    exported = tmp_path / "export.json"
    download.value.save_as(exported)
    chat.page.locator(".st-key-delete-conversation button").click()
    expect(chat.messages).to_have_count(0)
    chat.button("Import, export").click()
    chat.page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(exported)
    expect(chat.page.get_by_text("1 imported.")).to_be_visible()
    with chat.page.expect_download() as download:
        chat.button("↓ Export all as JSON").click()
    everything = json.loads(download.value.path().read_text())["conversations"]
    assert [each["title"] for each in everything] == ["Keep me"]
    chat.page.keyboard.press("Escape")
    chat.page.get_by_test_id("stSidebar").get_by_text("Keep me").click()
    expect(chat.messages).to_have_count(2)


def test_an_import_takes_what_is_good_and_names_the_rest(chat: Chat, tmp_path: Path) -> None:
    exported = tmp_path / "conversations.json"
    texts = [("human", "How do I sort?"), ("assistant", "With `sorted`.")]
    messages = [{"sender": sender, "text": text} for sender, text in texts]
    good = {"uuid": "1", "name": "From Claude", "chat_messages": messages}
    bad = {"uuid": "2", "name": "Broken", "chat_messages": 7}
    exported.write_text(json.dumps([good, bad]))
    chat.button("Import, export").click()
    chat.page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(exported)
    expect(chat.page.get_by_text("1 imported.")).to_be_visible()
    expect(chat.page.get_by_text("1 could not be read. “Broken” is damaged.")).to_be_visible()
    chat.page.keyboard.press("Escape")
    chat.page.get_by_test_id("stSidebar").get_by_text("From Claude").click()
    expect(chat.messages.last).to_contain_text("With sorted.")


def test_files_are_attached_and_shown_folded(chat: Chat, service: Service, tmp_path: Path) -> None:
    source = tmp_path / "merge.py"
    source.write_text("def merge(a, b):\n    return a | b\n")
    chat.attach(source)
    chat.ask("Explain this")
    chat.answered()
    content = last_body(service)["messages"][0]["content"]
    assert "File `merge.py`:\n```\ndef merge(a, b):" in content and content.endswith("Explain this")
    fold = chat.messages.first.get_by_text("merge.py")
    expect(chat.messages.first.get_by_text("return a | b")).not_to_be_visible()
    fold.click()
    expect(chat.messages.first.get_by_text("return a | b")).to_be_visible()


def test_any_text_is_attached_and_what_is_none_keeps_the_question(
    chat: Chat, service: Service, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": b"FROM debian",
        "latin.txt": "größe = 5  # Länge".encode("latin-1"),
        "picture.png": b"\x89PNG\r\n\x1a\n\0\0",
        "program.bin": b"\x7fELF\0\0",
        "large.log": b"x" * 2_000_000,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    picker = chat.page.locator('[data-testid="stChatInput"] input[type=file]')
    picker.set_input_files([tmp_path / name for name in files])
    expect(chat.page.get_by_test_id("stChatInput").get_by_text("large.log")).to_be_visible()
    chat.input.fill("Explain these")
    expect(chat.page.get_by_test_id("stChatInputSubmitButton")).to_be_enabled()  # all are uploaded
    chat.input.press("Enter")
    alert = chat.page.get_by_role("alert")
    expect(alert).to_contain_text("“picture.png” is a picture, and coder reads text only.")
    expect(alert).to_contain_text("“program.bin” is not a text file.")
    expect(alert).to_contain_text("“large.log” is too large (1,953 KB); at most 256 KB are allowed.")
    expect(chat.input).to_have_value("Explain these")
    expect(chat.messages).to_have_count(0)
    expect(chat.page.locator(".st-key-attached button")).to_have_count(2)
    chat.input.press("Enter")
    chat.answered()
    content = last_body(service)["messages"][0]["content"]
    assert "File `Dockerfile`" in content and "größe = 5  # Länge" in content and "picture.png" not in content
    expect(chat.messages.first.get_by_text("latin.txt")).to_contain_text("read as windows-1252")
    expect(alert).to_have_count(0)
    expect(chat.page.locator(".st-key-attached button")).to_have_count(0)


def test_a_file_that_the_browser_cannot_send_blocks_the_question(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "huge.log").write_bytes(b"x" * 51_000_000)
    picker = chat.page.locator('[data-testid="stChatInput"] input[type=file]')
    picker.set_input_files(tmp_path / "huge.log")
    expect(chat.page.get_by_test_id("stFileChip")).to_have_attribute("aria-invalid", "true")
    chat.ask("Explain this")
    expect(chat.page.locator("#unsent")).to_contain_text("Not sent: “huge.log” cannot be attached.")
    expect(chat.input).to_have_value("Explain this")
    expect(chat.messages).to_have_count(0)
    chat.button("Remove huge.log").click()
    chat.input.press("Enter")
    chat.answered()
    expect(chat.page.locator("#unsent")).to_be_hidden()


def test_back_and_forward_change_the_conversation(chat: Chat) -> None:
    ask_apart(chat, "About apples", "About pears")
    sidebar = chat.page.get_by_test_id("stSidebar")
    for title in ("About apples", "About pears"):
        sidebar.get_by_text(title).click()
        expect(chat.messages.first).to_contain_text(title)
        expect(chat.page).to_have_url(re.compile("c="))
    chat.page.go_back()
    expect(chat.messages.first).to_contain_text("About apples")
    chat.page.go_forward()
    expect(chat.messages.first).to_contain_text("About pears")


def test_an_unknown_conversation_is_named(open_chat: Open, context: BrowserContext) -> None:
    chat = open_chat(context)
    chat.open("/?c=0123456789abcdef")
    expect(chat.page.get_by_text("This browser has no such conversation.")).to_be_visible()
    chat.ask("Hello")
    chat.answered()
    expect(chat.page.get_by_text("This browser has no such conversation.")).to_have_count(0)


def test_light_and_dark_can_be_chosen(chat: Chat) -> None:
    app = chat.page.get_by_test_id("stApp")
    expect(app).to_have_css("background-color", "rgb(255, 255, 255)")
    chat.button("Settings").click()
    chat.page.get_by_role("radio", name="Dark").or_(chat.button("Dark")).first.click()
    expect(app).to_have_css("background-color", "rgb(21, 25, 27)")
    chat.page.reload()
    expect(app).to_have_css("background-color", "rgb(21, 25, 27)")


def test_a_long_paste_becomes_a_folded_file(chat: Chat, service: Service, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    program = "".join(f"def f{number}(x):\n    return x * {number}\n" for number in range(150))
    chat.page.evaluate("text => navigator.clipboard.writeText(text)", program)
    chat.input.fill("Review this file:")
    chat.page.keyboard.press("Control+V")
    expect(chat.page.get_by_test_id("stChatInput").get_by_text("pasted.py")).to_be_visible()
    expect(chat.input).to_have_value("Review this file:")
    expect(chat.page.get_by_test_id("stChatInputSubmitButton")).to_be_enabled()
    chat.input.press("Enter")
    chat.answered()
    assert last_body(service)["messages"][0]["content"] == (
        f"File `pasted.py`:\n```\n{program.strip()}\n```\n\nReview this file:"
    )
    question = chat.messages.first.bounding_box()
    assert question and question["height"] < 200
    expect(chat.messages.first.get_by_text("return x * 149")).not_to_be_visible()
    chat.page.evaluate("navigator.clipboard.writeText('short text')")
    chat.input.focus()
    chat.page.keyboard.press("Control+V")
    expect(chat.input).to_have_value("short text")


def test_what_cannot_fit_is_refused_and_can_be_edited(chat: Chat, service: Service, tmp_path: Path) -> None:
    source = tmp_path / "long.txt"
    source.write_text("word " * 20_000)
    chat.attach(source)
    chat.ask("Sum this up")
    expect(chat.messages.last).to_contain_text(re.compile(r"Too long: .* 6144 tokens\..* 20\d\d\d tokens"))
    assert service.engines["coder"].requests() == []
    chat.messages.first.get_by_role("button", name="Edit").click()
    chat.page.get_by_label("long.txt").uncheck()
    chat.button("Ask again").click()
    chat.answered()
    assert last_body(service)["messages"][0]["content"] == "Sum this up"


def test_reasoning_is_folded_and_markdown_drawn_but_no_html(chat: Chat) -> None:
    attack = (
        "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\n\n"
        "Look: <img src=x onerror='window.hacked=1'> ![i](http://evil.test/x.png) "
        "[l](javascript:window.hacked=1) :red[red] costs $5 and $6, \\(a^2\\)\n\n| a |\n|---|\n| b |\n\n"
        "```python\ndef f(): pass\n```"
    )
    chat.ask(mock(text=attack, reasoning_tokens=5))
    chat.answered()
    answer = chat.messages.last
    expect(answer.get_by_text("Reasoning")).to_be_visible()
    expect(answer.locator("table")).to_be_visible()
    expect(answer.locator("math")).to_be_visible()
    expect(answer.locator("pre code")).to_have_text("def f(): pass")
    expect(answer.get_by_text(":red[red] costs $5 and $6")).to_be_visible()
    expect(answer.locator("img")).to_have_count(0)
    for link in answer.locator("a").all():
        assert not (link.get_attribute("href") or "").startswith("javascript")
    assert chat.page.evaluate("window.hacked") is None


def test_older_turns_that_no_longer_fit_are_named(chat: Chat, service: Service) -> None:
    for turn in range(1, 4):
        chat.ask(f"Turn {turn}: " + "many words " * 1400)
        chat.answered(turn)
    expect(chat.page.get_by_text(re.compile("The [24] messages above no longer fit"))).to_be_visible()
    expect(chat.page.get_by_text(re.compile(r"context [\d,]+ / 6,144 tokens \(1\d\d%\)"))).to_be_visible()


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"error_at": 5}, "The connection was lost. The partial answer is saved."),
        ({"drop_at": 5}, "The connection was lost. The partial answer is saved."),
        ({"status": 500}, "Try again"),
        ({"status": 404}, "no model named"),
        ({"no_done": True, "drop_at": 3}, "The connection was lost. The partial answer is saved."),
    ],
)
def test_an_engine_that_fails_is_a_sentence_and_a_retry(
    chat: Chat, service: Service, knobs: dict[str, Any], said: str
) -> None:
    service.engines["coder"].set(**knobs, times=1)
    chat.ask("What is one?")
    expect(chat.messages.last).to_contain_text(said)
    expect(chat.messages.first).to_contain_text("What is one?")
    chat.button("Try again").click()
    chat.answered()


@pytest.fixture
def crowd(service: Service) -> Iterator[Callable[[int], None]]:
    """Other people's requests: as many wait behind those that take every slot of the coder."""
    slots = 8  # max-num-seqs of the engine's profile
    others = []

    def occupy() -> None:
        body = {"model": "coder", "messages": [{"role": "user", "content": "busy"}], "user": "others"}
        fetch(f"{service.url('router')}/v1/chat/completions", body)

    def come(waiting: int) -> None:
        for _ in range(slots + waiting):
            others.append(threading.Thread(target=occupy))
            others[-1].start()
        wait_for(
            lambda: (
                service.engines["coder"].state()["running"] == slots
                and re.search(
                    rf'duoserve_waiting\{{alias="coder"\}} {waiting}\b',
                    fetch(f"{service.url('router')}/metrics"),
                )
            ),
            "the queue did not fill",
        )

    yield come
    for other in others:
        other.join()


def test_a_full_queue_counts_down_and_then_answers(
    chat: Chat, service: Service, crowd: Callable[[int], None]
) -> None:
    service.engines["coder"].set(ttft_ms=1500)
    crowd(2)
    chat.ask("Me, too")
    expect(chat.messages.last).to_contain_text("The service is busy right now.")
    expect(chat.page.get_by_role("button", name=re.compile(r"Try again in \d+ s"))).to_be_disabled()
    service.engines["coder"].set(ttft_ms=0)
    expect(chat.button("Try again")).to_be_enabled()
    chat.button("Try again").click()
    chat.answered()


def test_the_queue_is_said_while_a_question_waits(
    chat: Chat, service: Service, crowd: Callable[[int], None]
) -> None:
    service.engines["coder"].set(ttft_ms=6000)
    crowd(0)
    service.engines["coder"].set(ttft_ms=0)
    chat.ask("Me, too")
    expect(chat.messages.last).to_contain_text(re.compile(r"In queue: 1 waiting \(\d s\)"))
    chat.answered()


def test_an_answer_that_stalls_says_so_and_goes_on(chat: Chat) -> None:
    chat.ask(mock(text=WORDS, stall_at=6, stall_ms=7000))
    expect(chat.messages.last).to_contain_text(re.compile(r"first case def.*No output for \d s", re.S))
    chat.answered()
    expect(chat.messages.last).not_to_contain_text("No output for")


def test_what_the_service_will_not_carry_is_a_sentence(chat: Chat, service: Service, tmp_path: Path) -> None:
    sources = [tmp_path / f"part{number}.txt" for number in range(5)]
    for source in sources:
        source.write_text("word " * 50_000)
    chat.attach(*sources)
    chat.input.fill("Sum this up")
    chat.button("Send message").click()
    expect(chat.messages.last).to_contain_text("The question is too large for the service")
    expect(chat.messages.first).to_contain_text("Sum this up")
    assert service.engines["coder"].requests() == []


def test_presets_are_made_changed_and_applied_where_they_are_chosen(chat: Chat, service: Service) -> None:
    preset = chat.page.get_by_role("combobox", name=re.compile("Preset"))
    # The area of another preset is another one, and for a moment both are there.
    prompt = chat.page.get_by_label("System prompt").first

    def kept(text: str) -> None:
        chat.page.wait_for_function(
            "text => localStorage.getItem('duoserve.preferences')?.includes(text)", arg=text
        )

    chat.button("Options").click()
    prompt.fill("You talk like a pirate.")
    prompt.press("Tab")
    preset.fill("Pirate")
    preset.press("Enter")
    kept("You talk like a pirate.")
    prompt.fill("You talk like an old pirate.")
    prompt.press("Tab")
    chat.button("Update “Pirate”").click()
    kept("You talk like an old pirate.")
    chat.page.reload()  # presets belong to the browser
    chat.page.get_by_text("Import, export").wait_for(state="attached")
    chat.button("Options").click()
    preset.click()
    chat.page.get_by_role("option", name="Pirate").click()
    expect(prompt).to_have_value("You talk like an old pirate.")
    chat.page.keyboard.press("Escape")
    chat.ask("Hello")
    chat.answered()
    system = {"role": "system", "content": "You talk like an old pirate."}
    assert last_body(service)["messages"][0] == system
    chat.button("Options").click()
    chat.button("Delete “Pirate”").click()
    expect(chat.button("Delete “Pirate”")).to_have_count(0)
    expect(prompt).to_have_value("You talk like an old pirate.")
    chat.page.keyboard.press("Escape")
    chat.ask("Hello again")
    chat.answered(2)
    chat.button("Options").click()
    expect(prompt).to_have_value("You talk like an old pirate.")
    # What the browser sent before it knew has not brought it back.
    expect(chat.button("Delete “Pirate”")).to_have_count(0)


def test_an_answer_costs_no_more_in_a_very_long_conversation(
    chat: Chat, service: Service, tmp_path: Path
) -> None:
    def work() -> float:
        """Seconds that the browser's page has computed so far."""
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    def cost(title: str, number: int) -> tuple[float, float]:
        """Seconds of CPU that the browser and the app take for an answer."""
        sidebar.get_by_text(title, exact=True).click()
        expect(chat.page.locator(f".transcript[aria-label='{title}']")).to_be_visible()
        expect(chat.messages.last).to_contain_text("Answer ")
        shown = chat.messages.count()
        chat.page.wait_for_timeout(1000)  # opening it has cost what it costs
        before, cpu = work(), sum(app.cpu_times()[:2])
        chat.ask(mock(text=f"Answer {number} again: {WORDS}", itl_ms=20))
        expect(chat.messages.last).to_contain_text(f"Answer {number} again: first case")
        expect(chat.messages.last.get_by_text("tokens/s")).to_be_visible()
        expect(chat.messages).to_have_count(min(40, shown + 2))
        return work() - before, sum(app.cpu_times()[:2]) - cpu

    app = psutil.Process(service.processes["ui"].child.pid)
    session = chat.page.context.new_cdp_session(chat.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # of the processor
    sidebar = chat.page.get_by_test_id("stSidebar")
    conversations = [Conversation(title="Short"), Conversation(title="Very long")]
    for conversation, turns in zip(conversations, (20, 400), strict=True):
        for number in range(turns):
            conversation.ask(f"Question {number}")
            conversation.answered(
                Message(role="assistant", text=f"Answer {number}: " + ANSWER, model="coder")
            )
    exported = tmp_path / "long.json"
    exported.write_text(export(conversations))
    chat.button("Import, export").click()
    chat.page.locator('[data-testid="stFileUploader"] input[type=file]').set_input_files(exported)
    expect(chat.page.get_by_text("2 imported.")).to_be_visible()
    chat.page.keyboard.press("Escape")
    sidebar.get_by_text("Very long").click()
    expect(chat.messages.last).to_contain_text("Answer 399")
    expect(chat.messages).to_have_count(40)
    chat.button("Show 40 earlier messages (760 in all)").click()
    expect(chat.messages).to_have_count(80)
    expect(chat.messages.last).to_contain_text("Answer 399")
    chat.page.reload()
    tick = 1 / os.sysconf("SC_CLK_TCK")  # how finely the kernel counts a process's time
    costs: dict[str, list[tuple[float, float]]] = {"Short": [], "Very long": []}

    def no_more() -> bool:
        (short, app_short), (long, app_long) = (
            (median(browser for browser, _ in each), median(app for _, app in each))
            for each in costs.values()
        )
        return long <= 1.2 * short and app_long <= 1.2 * app_short + 2 * tick

    # One answer's cost differs by a third from the next one's, so a few more are looked at before it is said.
    for number in range(12):
        for title, each in costs.items():
            each.append(cost(title, number))
        if number >= 2 and no_more():
            break
    assert no_more(), costs


def test_waiting_for_a_place_is_said(chat: Chat, service: Service) -> None:
    chat.ask(mock(ttft_ms=2500))
    expect(chat.messages.last).to_contain_text(re.compile(r"coder is reading … \d s"))
    chat.answered()


def test_the_keyboard_is_enough(chat: Chat) -> None:
    expect(chat.input).to_be_focused()
    chat.page.keyboard.type("first line")
    chat.page.keyboard.press("Shift+Enter")
    chat.page.keyboard.type("second line")
    chat.page.keyboard.press("Enter")
    chat.answered()
    expect(chat.messages.first).to_contain_text(re.compile("first line\\s+second line"))
    chat.page.keyboard.press("Control+Shift+O")
    expect(chat.messages).to_have_count(0)
    expect(chat.input).to_be_focused()


def test_an_answer_can_be_copied(chat: Chat, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.ask(mock(text="some **bold** text"))
    chat.answered()
    chat.messages.last.get_by_role("button", name="Copy the answer").click()
    expect(chat.messages.last.get_by_text("Copied")).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "some **bold** text"


def test_the_about_page_shows_figures_and_hides_the_key(chat: Chat, service: Service) -> None:
    chat.ask("Make a figure")
    chat.answered()
    chat.page.get_by_role("link", name="About this service").click()
    expect(chat.page.get_by_text("TTFT, p95").first).to_be_visible()
    expect(chat.page.get_by_text("99% of requests do not fail")).to_be_visible()
    kept = re.compile(r"coder: kept in [\d.]+% of \d+ requests, .*budget")
    expect(chat.page.get_by_text(kept).last).to_be_visible()
    expect(chat.page.locator("[aria-label^='Availability: error budget left']")).to_be_visible()
    expect(
        chat.page.locator("code").get_by_text(f"http://127.0.0.1:{service.ports['router']}/v1").first
    ).to_be_visible()
    assert KEY not in chat.page.content()
    chat.page.get_by_text("Show the key").click()
    expect(chat.page.locator("code").get_by_text(KEY).first).to_be_visible()
    chat.page.get_by_role("link", name="Back to the chat").click()
    expect(chat.messages).to_have_count(2)


ANSWER = """`dict.update` changes the left dict, `|` makes a new one:

```python
def merged(first: dict, second: dict) -> dict:
    return first | second
```

| Way | Changes | Since |
|---|---|---|
| `update` | in place | always |
| `a \\| b` | nothing | Python 3.9 |

On equal keys the **right** side wins. Copying costs $O(n + m)$."""


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("chat", (1280, 800), "light"), ("chat-dark", (1280, 800), "dark"), ("chat-phone", (390, 844), "light")],
)
def test_every_look_is_accessible_and_fits(
    browser: Browser,
    open_chat: Open,
    service: Service,
    name: str,
    size: tuple[int, int],
    scheme: Any,
    tmp_path: Path,
) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    context.set_default_timeout(25_000)
    chat = open_chat(context)
    _check(chat, tmp_path / f"{name}-empty.png")
    service.engines["coder"].set(text=ANSWER, itl_ms=30, times=1)
    chat.ask("How do I merge two dicts in Python, and what does it cost?")
    chat.answered()
    chat.page.mouse.move(0, 0)
    chat.page.wait_for_timeout(300)
    _check(chat, ROOT / "reports" / "images" / f"{name}.png")  # to be copied to docs/images
    if size[0] > 500:
        chat.page.get_by_role("link", name="About this service").click()
        expect(chat.page.get_by_text("Settings for")).to_be_visible()
        _check(chat, tmp_path / f"{name}-about.png")
    context.close()


def _check(chat: Chat, picture: Path) -> None:
    """No serious accessibility problem, nothing wider than the screen; a picture to look at."""
    width = chat.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, f"the page is {width} px too wide"
    picture.parent.mkdir(parents=True, exist_ok=True)
    chat.page.screenshot(path=picture)
    found = Axe().run(chat.page).response["violations"]
    serious = [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert not serious, "\n".join(serious)
