import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from ui.answers import Answer, give
from ui.router_client import (
    ChatRequest,
    Ended,
    Event,
    ModelStatus,
    Piece,
    Readiness,
    RouterFailure,
    Started,
)

REQUEST = ChatRequest("coder", [{"role": "user", "content": "x"}], 0.7, 1.0, 100, "me")


class FakeRouter:
    """Gives one list of events for each request; a RouterFailure in it is raised."""

    def __init__(self, *answers: list[Event | RouterFailure]) -> None:
        self.answers = list(answers)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        for event in self.answers.pop(0):
            if isinstance(event, RouterFailure):
                raise event
            yield event


def readiness(state: str) -> Readiness:
    status = ModelStatus(state=state, since=datetime.now(UTC), reason="no memory")  # type: ignore[arg-type]
    return Readiness(status=state, models={"coder": status})


async def given(router: FakeRouter, state: str = "ready") -> Answer:
    answer = Answer("c", REQUEST)
    await give(answer, router, lambda: readiness(state))  # type: ignore[arg-type]
    return answer


async def test_an_answer_is_filled_and_measured() -> None:
    answer = await given(
        FakeRouter([Started(2, 80), Piece(reasoning="hm"), Piece("a"), Piece("b"), Ended("stop", 30, 2)])
    )
    message = answer.message
    assert answer.ended and (message.text, message.reasoning, message.ending) == ("ab", "hm", "complete")
    assert (message.left_out, message.left_out_tokens) == (2, 80)
    assert (message.prompt_tokens, message.completion_tokens) == (30, 2)
    assert message.ttft is not None and message.seconds is not None


async def test_a_failure_in_the_middle_keeps_what_came() -> None:
    answer = await given(FakeRouter([Started(0, 0), Piece("half"), RouterFailure("lost", "Gone.")]))
    assert (answer.message.text, answer.message.ending, answer.message.failure) == ("half", "failed", "Gone.")


async def test_a_full_queue_says_when_to_come_back() -> None:
    answer = await given(FakeRouter([RouterFailure("busy", "Full.", 12)]))
    assert answer.message.retry_at == pytest.approx(datetime.now(UTC).timestamp() + 12, abs=1)


async def test_a_question_waits_for_a_model_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.answers._POLL", 0)
    answer = await given(FakeRouter([RouterFailure("loading", "")], [Piece("late"), Ended("stop", 1, 1)]))
    assert (answer.message.text, answer.message.ending) == ("late", "complete")


async def test_a_question_does_not_wait_for_a_model_that_went_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.answers._POLL", 0)
    answer = await given(FakeRouter([RouterFailure("loading", "")]), "down")
    assert answer.message.ending == "failed" and "no memory" in answer.message.failure


async def test_a_cancelled_answer_counts_as_stopped() -> None:
    arrived = asyncio.Event()

    class Endless(FakeRouter):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
            yield Piece("half")
            arrived.set()
            await asyncio.Event().wait()

    answer = Answer("c", REQUEST)
    task = asyncio.create_task(give(answer, Endless(), lambda: None))  # type: ignore[arg-type]
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])
    assert answer.ended and (answer.message.text, answer.message.ending) == ("half", "stopped")


async def test_updates_begin_with_what_is_there_and_end_with_the_answer() -> None:
    answer = Answer("c", REQUEST)
    seen: list[str] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async for _ in answer.updates():
            seen.append(answer.message.text)
            begun.set()

    following = asyncio.create_task(follow())
    await begun.wait()
    for text in ("a", "b"):
        await asyncio.to_thread(answer.change, "answering", text=text)
    await asyncio.to_thread(answer.change, "ended")
    await asyncio.wait_for(following, 5)
    assert seen[0] == "" and seen[-1] == "ab" and sorted(seen, key=len) == seen
