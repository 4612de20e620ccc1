"""What the chat app costs: the time it adds to the first token, and CPU and memory of each session."""

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser

from tests.browser.chat_page import Chat
from tests.browser.service import Service, fetch, whole
from tests.support.waiting import wait_for

ANSWERS, TOKENS, ITL_MS = 5, 200, 33
# Notes when Enter is pressed and when the first token is on screen.
WATCH = """() => {
  window.waits = []; let pressed = 0;
  const press = (key) => { if (key.key === 'Enter') pressed = performance.now(); };
  document.addEventListener('keydown', press, true);
  new MutationObserver(() => {
    const messages = document.querySelectorAll('[data-testid=message]');
    const asked = window.waits.length;
    if (!pressed || messages.length !== 2 * asked + 2) return;  // the question names the same token
    if (messages[messages.length - 1].textContent.includes('TOKEN' + asked + 'x')) {
      window.waits.push(performance.now() - pressed); pressed = 0;
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    with whole(folder, {"ttft_ms": 200, "itl_ms": ITL_MS}) as running:
        yield running


def ttft(service: Service) -> tuple[float, float]:
    """Sum (ms) and count of the router's own times to the first token."""
    text = fetch(f"{service.url('router')}/metrics")
    found = re.findall(r"^duoserve_ttft_seconds_(sum|count)\{.*\} ([\d.e+-]+)$", text, re.M)
    seconds, count = (sum(float(v) for name, v in found if name == each) for each in ("sum", "count"))
    return seconds * 1000, count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "at_once"), [(1, True), (8, False), (8, True)], ids=["one", "eight", "eight at once"]
)
def test_cost(
    service: Service,
    browser: Browser,
    people: int,
    at_once: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """All have an answer streaming all the time. They ask evenly spread over its time, or in one instant."""
    process = psutil.Process(service.processes["ui"].child.pid)
    chats = [Chat(browser.new_context().new_page(), service.url("ui")).open() for _ in range(people)]
    memory, before = process.memory_info().rss, ttft(service)
    for chat in chats:
        chat.page.evaluate(WATCH)

    def answered(chat: Chat, answers: int) -> bool:
        if chat.messages.count() != 2 * answers:
            return False
        return not answers or bool(chat.messages.last.get_by_text("tokens/s").count())

    cpu, due = sum(process.cpu_times()[:2]), time.monotonic()
    for number in range(ANSWERS):
        text = f"TOKEN{number}x " + "word " * (TOKENS - 1)
        if at_once:
            for chat in chats:
                wait_for(lambda chat=chat, number=number: answered(chat, number), "no answer")
        for chat in chats:
            if not at_once:
                wait_for(lambda chat=chat, number=number: answered(chat, number), "no answer")
                time.sleep(max(0.0, due - time.monotonic()))
                due = time.monotonic() + TOKENS * ITL_MS / 1000 / people
            chat.ask(f"Question {number}. mock:{json.dumps({'text': text})}")
    for chat in chats:
        wait_for(lambda chat=chat: answered(chat, ANSWERS), "no answer")
    cpu = sum(process.cpu_times()[:2]) - cpu
    after = ttft(service)
    routers = (after[0] - before[0]) / (after[1] - before[1])
    shown = [wait for chat in chats for wait in chat.page.evaluate("window.waits")]
    streamed = people * ANSWERS * TOKENS * ITL_MS / 1000
    figures = {
        "sessions": people,
        "at_once": at_once,
        "first_token_on_screen_ms": round(statistics.median(shown)),
        "router_ttft_ms": round(routers),
        "added_ms": round(statistics.median(shown) - routers),
        "cpu_share_per_streaming_session": round(cpu / streamed, 3),
        "rss_mb": round(process.memory_info().rss / 1e6),
        "rss_growth_mb": round((process.memory_info().rss - memory) / 1e6),
    }
    print(json.dumps(figures))
    for name, value in figures.items():
        record_property(name, value)
    for chat in chats:
        chat.page.context.close()
    assert len(shown) == people * ANSWERS
