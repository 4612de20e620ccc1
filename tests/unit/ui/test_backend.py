"""Answers whose pages are gone."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from tests.support.waiting import wait_for
from ui.answers import Answer
from ui.backend import Backend
from ui.router_client import ChatRequest, ListedModel, RouterFailure
from ui.settings import AppSettings


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    async def nobody(router: object) -> None:
        raise RouterFailure("unreachable", "The router does not answer.")

    async def endless(answer: Answer, router: object, ready: Callable[[], object]) -> None:
        answer.change("answering", text="half")
        try:
            await asyncio.Event().wait()
        finally:
            answer.change("ended")

    for name in ("ready", "models", "metrics"):
        monkeypatch.setattr(f"ui.router_client.RouterClient.{name}", nobody)
    monkeypatch.setattr("ui.backend.give", endless)
    return Backend(
        AppSettings(
            litellm_master_key="k" * 40,  # type: ignore[arg-type]
            bind_address="127.0.0.1",
            ui_port=8501,
            router_url="http://127.0.0.1:4000",
            router_port=4000,
            context_ratio=0.75,
        )
    )


def answer_to() -> Answer:
    return Answer("c", ChatRequest("coder", [], None, None, 16, "me"))


def asked(backend: Backend) -> Answer:
    answer = backend.ask(answer_to())
    wait_for(lambda: answer.message.text and backend.find(answer.id), "it does not run")
    return answer


def test_an_answer_can_be_followed_and_stopped_before_it_has_begun(backend: Backend) -> None:
    busy = threading.Event()
    backend._loop.call_soon_threadsafe(busy.wait)
    answer = backend.ask(answer_to())
    assert backend.find(answer.id) is answer
    backend.stop(answer)
    busy.set()
    wait_for(lambda: answer.ended, "it goes on for ever")
    assert answer.message.ending == "stopped"
    wait_for(lambda: backend.find(answer.id) is None, "it is kept")


def test_nobody_takes_over_an_answer_whose_page_is_there(backend: Backend) -> None:
    assert backend.take_over(asked(backend).id) is None


def test_an_answer_that_nobody_comes_back_for_ends_and_is_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.backend.ABANDONED_AFTER", 0.01)
    answer = asked(backend)
    backend.abandon(answer)
    wait_for(lambda: answer.ended, "it goes on for ever")
    assert backend.knows(answer.id)
    assert backend.take_over(answer.id) is answer and answer.message.text == "half"


def test_an_answer_is_known_until_it_is_stored(backend: Backend) -> None:
    answer = asked(backend)
    backend.stop(answer)
    wait_for(lambda: answer.ended, "it goes on for ever")
    assert backend.knows(answer.id)
    backend.stored(answer)
    assert not backend.knows(answer.id)


def test_a_page_that_comes_back_keeps_its_answer_going(backend: Backend) -> None:
    answer = asked(backend)
    backend.abandon(answer)
    wait_for(lambda: backend.take_over(answer.id) is answer, "it cannot be taken over")
    assert backend.take_over(answer.id) is None, "it can be taken over twice"
    assert not answer.ended and backend.knows(answer.id)


def test_a_remote_model_s_name_says_who_answers(backend: Backend) -> None:
    backend.models = [
        ListedModel("coder", "coder", 8192),
        ListedModel("big", "big", 8192, provider="anthropic"),
    ]
    assert [backend.title(name) for name in ("coder", "big")] == ["coder", "big (remote: anthropic)"]
