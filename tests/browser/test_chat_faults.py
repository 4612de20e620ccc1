"""What people see when the service loads, breaks and comes back: one story, told in order by one service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.chat_page import Chat
from tests.browser.service import Service, fetch, unreachable
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    running = Service(folder)
    try:
        running.engines["general"].start(completion_tokens=20)
        running.start("router")
        running.start("ui")
        running.ready("general")  # coder is not there yet: it loads
        yield running
    finally:
        running.stop()


@pytest.fixture
def chat(service: Service, context: BrowserContext) -> Chat:
    return Chat(context.new_page(), service.url("ui")).open()


def test_a_question_waits_for_a_loading_model_or_is_withdrawn(chat: Chat, service: Service) -> None:
    expect(chat.page.get_by_text("coder loading")).to_be_visible()
    chat.ask("Will you answer?")
    expect(chat.messages.last).to_contain_text(
        re.compile(r"coder is loading. Your question is waiting \(\d+ s\)")
    )
    chat.button("Stop").click()
    expect(chat.messages.last).to_contain_text("Stopped before the answer began.")
    chat.button("Regenerate").click()
    expect(chat.messages.last).to_contain_text("Your question is waiting")
    service.engines["coder"].start(completion_tokens=5000, itl_ms=20)
    expect(chat.messages.last).to_contain_text("error")
    expect(chat.button("Stop")).to_be_visible()
    assert len(service.engines["coder"].requests()) == 1


def test_an_engine_killed_in_the_middle_keeps_what_came(chat: Chat, service: Service) -> None:
    chat.ask("Tell me everything")
    expect(chat.messages.last).to_contain_text("error")
    service.engines["coder"].stop()
    expect(chat.messages.last).to_contain_text("The connection was lost. The partial answer is saved.")
    expect(chat.messages.last).to_contain_text("error")
    expect(chat.page.get_by_text("coder down")).to_be_visible()
    chat.button("Try again").click()
    expect(chat.messages.last).to_contain_text("not available at the moment")
    service.engines["coder"].start(completion_tokens=20)
    service.ready("coder")
    expect(chat.button("Try again")).to_be_enabled()
    chat.button("Try again").click()
    chat.answered()


def test_the_other_model_serves_on_meanwhile(chat: Chat, service: Service) -> None:
    service.engines["coder"].stop()
    expect(chat.page.get_by_text("coder down")).to_be_visible()
    chat.choose_model("general")
    chat.ask("Are you there?")
    chat.answered()


def test_a_router_that_is_gone_is_named_and_comes_back(chat: Chat, service: Service) -> None:
    chat.choose_model("general")
    service.kill("router")
    wait_for(lambda: unreachable(f"{service.url('router')}/ready"), "the router lives on")
    expect(chat.page.get_by_text("router not reachable")).to_be_visible()
    chat.ask("Anybody?")
    expect(chat.messages.last).to_contain_text("is not responding")
    service.start("router")
    service.ready("general")
    chat.button("Try again").click()
    chat.answered()


def test_a_key_that_the_router_refuses_is_a_sentence(chat: Chat, service: Service) -> None:
    service.kill("ui")
    service.start("ui", LITELLM_MASTER_KEY="sk-another-key-than-the-router-has-0a1b2c3d4e")
    wait_for(lambda: fetch(f"{service.url('ui')}/_stcore/health"), "the chat app did not start")
    chat.open()
    chat.choose_model("general")
    chat.ask("Let me in")
    expect(chat.messages.last).to_contain_text("The router does not accept the chat app's key.")


def test_conversations_survive_a_restart_of_the_app(chat: Chat, service: Service) -> None:
    chat.choose_model("general")
    chat.ask("Remember me")
    expect(chat.messages).to_have_count(2)
    service.kill("ui")
    service.start("ui")
    wait_for(lambda: fetch(f"{service.url('ui')}/_stcore/health"), "the chat app did not start")
    # The page that is still open finds the new server by itself.
    expect(chat.page.get_by_test_id("stSidebar").get_by_text("Remember me")).to_be_visible()
    chat.page.reload()
    expect(chat.messages.first).to_contain_text("Remember me")


def test_what_has_come_of_an_answer_survives_the_app(chat: Chat, service: Service) -> None:
    service.engines["general"].set(completion_tokens=5000, itl_ms=20)
    chat.choose_model("general")
    chat.ask("Tell me everything")
    expect(chat.messages.last).to_contain_text("error")
    chat.page.wait_for_function("localStorage.length && Object.keys(localStorage).join().includes('partial')")
    service.kill("ui")
    service.start("ui")
    wait_for(lambda: fetch(f"{service.url('ui')}/_stcore/health"), "the chat app did not start")
    chat.page.reload()
    expect(chat.messages.last).to_contain_text("The connection was lost. The partial answer is saved.")
    expect(chat.messages.last).to_contain_text("error")
    expect(chat.button("Continue")).to_be_visible()


def test_nothing_secret_is_in_the_app_s_log(service: Service) -> None:
    log = (service.folder / "ui.log").read_text()
    assert "Remember me" not in log and service.settings["LITELLM_MASTER_KEY"] not in log
    assert "Traceback" not in log
