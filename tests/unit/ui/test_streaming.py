"""A growing answer as the browser receives it."""

import json
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui import streaming
from ui.answers import Answer
from ui.router_client import ChatRequest


class FakeBackend:
    """Knows one answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.stopped: list[Answer] = []

    def find(self, answer_id: str) -> Answer | None:
        return self.answer if answer_id == self.answer.id else None

    def stop(self, answer: Answer) -> None:
        self.stopped.append(answer)

    def waiting(self, model: str) -> int:
        return 3


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    known = FakeBackend(Answer("c", ChatRequest("coder", [], None, None, 16, "me")))
    monkeypatch.setattr("ui.streaming.shared", lambda: known)
    return known


@pytest.fixture
def client(backend: FakeBackend) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=streaming.routes)) as client:
        yield client


def test_an_answer_is_told_from_its_beginning_to_its_end(client: TestClient, backend: FakeBackend) -> None:
    backend.answer.change("answering", text="some *text*")
    backend.answer.change("ended")
    response = client.get(f"/answers/{backend.answer.id}")
    assert response.headers["content-type"].startswith("text/event-stream")
    (event,) = (json.loads(line[6:]) for line in response.text.splitlines() if line)
    assert event == {"text": [0, ['<p dir="auto">some <em>text</em></p>\n']], "ended": True}


def test_an_answer_that_is_not_there_ends_the_following(client: TestClient) -> None:
    assert client.get("/answers/nosuch").status_code == 204  # a browser does not try again


def test_a_stop_needs_no_page(client: TestClient, backend: FakeBackend) -> None:
    assert client.post(f"/answers/{backend.answer.id}/stop").status_code == 204
    assert client.post("/answers/nosuch/stop").status_code == 204
    assert backend.stopped == [backend.answer]


def test_what_an_answer_waits_for_is_told(backend: FakeBackend) -> None:
    answer = backend.answer
    answer.started -= 4
    assert streaming.progress(answer, backend) == "In queue: 3 waiting (4 s)"  # type: ignore[arg-type]
    answer.change("loading")
    assert streaming.progress(answer, backend) == "coder is loading. Your question is waiting (4 s)."  # type: ignore[arg-type]
    answer.change("answering", text="a")
    assert streaming.progress(answer, backend) == ""  # type: ignore[arg-type]
