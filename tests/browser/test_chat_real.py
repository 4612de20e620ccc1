"""The chat app before real models: what a team does on a normal day."""

import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.chat_page import Chat
from tests.support.stack import Stack
from tests.support.waiting import wait_for

LONG = "Write a very long story about a lighthouse keeper and the sea. Do not stop early."


def running(stack: Stack, model: str) -> float:
    """Requests that vLLM works on."""
    return metric(stack, model, r"vllm:num_requests_running\{.*\}")


def finished(stack: Stack, model: str) -> float:
    """Requests whose answer came to its own end. vLLM does not count those that it gave up."""
    return metric(stack, model, r"vllm:request_success_total\{.*\}")


def metric(stack: Stack, model: str, series: str) -> float:
    with urllib.request.urlopen(f"{stack.engines[model]}/metrics", timeout=10) as metrics:
        text = metrics.read().decode()
    return sum(float(value) for value in re.findall(rf"^{series} ([\d.e+]+)$", text, re.M))


@pytest.fixture
def open_chat(stack: Stack, browser: Browser) -> Iterator[Callable[[BrowserContext], Chat]]:
    yield lambda context: Chat(context.new_page(), stack.ui_url).open()


def test_a_real_answer_grows_and_stop_frees_the_engine(
    stack: Stack, open_chat: Callable[[BrowserContext], Chat], context: BrowserContext
) -> None:
    chat = open_chat(context)
    chat.choose_model("general")
    chat.ask(LONG)
    expect(chat.messages).to_have_count(2)
    first = wait_for(
        lambda: len(chat.messages.last.inner_text()) > 40 and len(chat.messages.last.inner_text()), "?"
    )
    wait_for(lambda: len(chat.messages.last.inner_text()) > first + 40, "the answer does not grow")
    assert running(stack, "general") == 1
    before = finished(stack, "general")
    chat.button("Stop").click()
    wait_for(lambda: running(stack, "general") == 0, "vLLM works on")
    assert finished(stack, "general") == before
    expect(chat.messages.last).to_contain_text("Stopped.")
    kept = chat.messages.last.inner_text()
    chat.button("Continue").click()
    wait_for(lambda: running(stack, "general") == 1, "it does not go on")
    expect(chat.button("Stop")).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(chat.messages.last).to_contain_text("Stopped.")
    assert chat.messages.last.inner_text().startswith(kept[:60])


def test_eight_people_chat_at_once_and_see_only_their_own(
    stack: Stack, open_chat: Callable[[BrowserContext], Chat], browser: Browser
) -> None:
    people = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana"]
    chats = []
    for number in range(len(people)):
        context = browser.new_context()
        context.set_default_timeout(30_000)
        chat = open_chat(context)
        chat.button("Options").click()
        chat.page.get_by_role("spinbutton", name="Max response length (tokens)").fill("40")
        chat.page.keyboard.press("Tab")
        chat.page.keyboard.press("Escape")
        if number % 2:
            chat.choose_model("general")
        chats.append(chat)
    for name, chat in zip(people, chats, strict=True):
        chat.ask(f"My name is {name}. Say hello to {name}.")
    for name, chat in zip(people, chats, strict=True):
        chat.answered(seconds=90)  # eight browsers and two engines share the machine's cores
        text = chat.page.get_by_test_id("stApp").inner_text()
        assert f"My name is {name}" in text
        assert not [other for other in people if other != name and f"My name is {other}" in text]
        chat.page.context.close()
    wait_for(lambda: running(stack, "coder") + running(stack, "general") == 0, "engines work for nobody")
