"""The pages, drawn without a browser and with a router that is not there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.support import ROOT
from tests.support.waiting import wait_for
from ui.backend import Backend, shared
from ui.conversation import Message
from ui.metrics import MetricsSample, Promise
from ui.router_client import ListedModel, Readiness, RouterFailure, Usage
from ui.session import ChatSession
from ui.views import messages, models

APP = Path(__file__).parents[3] / "ui" / "app.py"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> AppTest:
    for name, value in {
        "LITELLM_MASTER_KEY": "k" * 40,
        "BIND_ADDRESS": "127.0.0.1",
        "UI_PORT": "8501",
        "ROUTER_PORT": "4000",
        "ROUTER_URL": "http://127.0.0.1:4000",
        "CONTEXT_RATIO": "0.75",
    }.items():
        monkeypatch.setenv(name, value)
    # AppTest puts the app into its place, where a process that another test starts would begin with it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    async def nobody(router: object) -> None:
        raise RouterFailure("unreachable", "The router does not answer.")

    async def nothing(router: object, request: object) -> object:
        raise RouterFailure("unreachable", "The router does not answer.")
        yield

    for name in ("ready", "models", "metrics"):
        monkeypatch.setattr(f"ui.router_client.RouterClient.{name}", nobody)
    monkeypatch.setattr("ui.router_client.RouterClient.stream", nothing)
    shared.cache_clear()
    return AppTest.from_file(str(APP), default_timeout=30)


def session(app: AppTest) -> ChatSession:
    chat = app.session_state["chat"]
    assert isinstance(chat, ChatSession)
    return chat


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_an_empty_chat_teaches_what_to_do(app: AppTest) -> None:
    app.run()
    assert not app.exception
    assert "# What are you working on?" in [text.value for text in app.markdown]
    assert sum(str(button.key).startswith("try-") for button in app.button) == 3
    assert any("router not reachable" in text.value for text in app.markdown)


def test_a_question_without_a_router_is_kept_and_can_be_asked_again(app: AppTest) -> None:
    app.run()
    app.chat_input[0].set_value("Is anybody there?").run()
    wait_for(lambda: len(session(app.run()).current.messages) == 2, "the failure is shown")
    assert not app.exception
    assert [message.text for message in session(app).current.messages] == ["Is anybody there?", ""]
    (question, answer) = messages.entries(session(app))
    assert question["text"] == "Is anybody there?" and answer["failure"] == "The router does not answer."
    assert ["retry", "Try again"] in answer["actions"]


def test_an_example_is_asked_of_its_model(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = {
        "status": "ready",
        "models": {
            name: {"state": "ready", "since": "2026-11-22T00:00:00Z", "reason": "serving"}
            for name in ("coder", "general")
        },
    }
    # Fixed, because the service goes on looking for its router, which is not there.
    known = property(lambda _: Readiness.model_validate(ready), lambda _, state: None)
    monkeypatch.setattr(Backend, "readiness", known, raising=False)
    app.run()
    next(button for button in app.button if "release note" in button.label).click().run()
    assert session(app).current.options.model == "general"


def test_a_long_conversation_draws_its_end_and_offers_the_rest(app: AppTest) -> None:
    app.run()
    chat = session(app)
    for number in range(60):
        chat.current.ask(f"question {number}")
        chat.current.answered(Message(role="assistant", text=f"answer {number}", model="coder"))
    assert [each["text"] for each in messages.entries(chat)] == [
        text for number in range(40, 60) for text in (f"question {number}", f"answer {number}")
    ]
    assert len(messages.entries(chat, 80)) == 80
    assert "above" not in messages.entries(chat)[0]


def test_sync_is_off_and_says_why_it_cannot_be_on(app: AppTest) -> None:
    app.run()
    session(app).storage.loaded = True
    app.run()
    assert not app.exception
    switch = next(each for each in app.toggle if each.label.startswith("Sync"))
    assert switch.disabled and not switch.value
    assert any("nobody signs in" in caption.value for caption in app.caption)


def test_the_about_page_hides_the_key_until_it_is_asked_for(app: AppTest) -> None:
    app.run().switch_page("views/about.py").run()
    assert not app.exception
    shown = "".join(code.value for code in app.code)
    assert "http://127.0.0.1:4000/v1" in shown and "k" * 40 not in shown
    app.toggle[0].set_value(True).run()
    assert "k" * 40 in "".join(code.value for code in app.code)


def test_the_about_page_shows_what_is_left_of_each_error_budget(app: AppTest) -> None:
    sample = MetricsSample(
        0.0,
        promises={
            "ttft": Promise(0.95, 4.04, {"coder": 970, "a*b*": 80}, {"coder": 30, "a*b*": 20}),
            "completion": Promise(0.95),
            "availability": Promise(0.99),
        },
        promises_since=1.7957376e9,
    )
    app.run()
    session(app).backend.samples.append(sample)
    app.switch_page("views/about.py").run()
    assert not app.exception
    shown = [text.value for text in app.markdown]
    assert "95% of answers begin within 4 s" in shown and "99% of requests do not fail" in shown
    (budgets,) = (text for text in shown if "budget left" in text)
    assert "coder: kept in 97.0% of 1,000 requests, 40% of the budget left" in budgets
    assert r"a\*b\*: kept in 80.0% of 100 requests, budget overdrawn by 300%" in budgets
    assert any("Counted since 2026-11-27" in text for text in shown)
    captions = [text.value for text in app.caption]
    assert any("not been measured" in text for text in captions) and "No requests." in captions


def used(**more: Any) -> dict[str, Any]:
    sums = {"requests": 3, "prompt_tokens": 1200, "cached_share": 0.25, "completion_tokens": 50}
    times = {"mean_wait_ms": 1500.0, "longest_wait_ms": 2000.0, "refused": 1, "failed": 0, "left": 0}
    return {**sums, **times, "reasons": {"queue_full": 1}, "tools": {"zed": 3}, **more}


@pytest.mark.parametrize(("viewer", "key"), [("master", ""), ("ann", "a" * 64)])
def test_whoever_has_a_key_of_their_own_sees_only_that(
    app: AppTest, monkeypatch: pytest.MonkeyPatch, viewer: str, key: str
) -> None:
    wanted: list[tuple[object, ...]] = []

    async def usage(router: object, *arguments: object) -> Usage:
        wanted.append(arguments)
        rows = [used(name="a|<b>*x*"), used(name=None)]
        views = {"client": rows, "model": [used(name="coder")], "day": [], "tool": []}
        return Usage.model_validate(
            {"log_begins": None, "total": used(requests=6), "hours": [[1] * 24] * 7, **views}
        )

    monkeypatch.setattr("ui.router_client.RouterClient.usage", usage)
    monkeypatch.setattr("ui.signin.viewer", lambda *_: viewer)
    monkeypatch.setattr("ui.signin.personal_key", lambda *_: key)
    app.run().switch_page("views/usage.py").run()
    assert not app.exception and wanted == [("7d", 0, key)]
    table = next(text.value for text in app.markdown if text.value.startswith("| Who"))
    row = next(line for line in table.splitlines() if "1,200" in line)
    assert r"a\|\<b\>\*x\*" in row and "25%" in row and "1.50 s" in row and r"queue\_full 1" in row
    assert "**Total**" in table
    app.radio[0].set_value("24h").run()
    assert wanted[-1][0] == "24h"

    app.switch_page("views/about.py").run()
    assert len(app.toggle) == (viewer == "master")  # shows the service's key


def test_use_that_cannot_be_read_is_told(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def usage(router: object, *arguments: object) -> Usage:
        raise RouterFailure("service", "The router could not answer.")

    monkeypatch.setattr("ui.router_client.RouterClient.usage", usage)
    app.run().switch_page("views/usage.py").run()
    assert not app.exception and "could not answer" in app.error[0].value


def test_whoever_asks_for_their_use_with_a_key_that_has_ended_is_signed_out(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def usage(router: object, *arguments: object) -> Usage:
        raise RouterFailure("personal", "Your key has ended.")

    monkeypatch.setattr("ui.router_client.RouterClient.usage", usage)
    monkeypatch.setattr(Backend, "refused", lambda _, key: ended.append(key))
    monkeypatch.setattr("ui.signin.viewer", lambda *_: None if ended else "ann")
    monkeypatch.setattr("ui.signin.personal_key", lambda *_: "a" * 64)
    app.run().switch_page("views/usage.py").run()
    assert ended == ["a" * 64] and "Signed out." in [text.value for text in app.markdown]


def test_only_models_that_chat_are_offered(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {"coder": "chat", "edit": "completion", "embedding": "embedding"}
    status = {"state": "ready", "since": "2026-11-22T00:00:00Z"}
    ready = Readiness.model_validate({"status": "ready", "models": dict.fromkeys(modes, status)})
    known = property(lambda _: ready, lambda _, state: None)
    monkeypatch.setattr(Backend, "readiness", known, raising=False)
    app.run()
    chat = session(app)
    chat.backend.models = [ListedModel(name, name, 0, mode=mode) for name, mode in modes.items()]
    assert [each["name"] for each in models.entries(chat)] == ["coder"]


def test_pandas_is_whole_before_a_chart_is_drawn() -> None:
    # Altair takes it from sys.modules, where another session's thread may have put only a part of it.
    code = "import sys, ui.views.beside_chat; sys.modules['pandas'].Timestamp"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
