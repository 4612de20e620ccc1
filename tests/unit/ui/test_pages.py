"""The pages, drawn without a browser and with a router that is not there."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ui.backend import Backend, shared
from ui.conversation import Message
from ui.router_client import ListedModel, Readiness, RouterFailure
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


def test_the_about_page_hides_the_key_until_it_is_asked_for(app: AppTest) -> None:
    app.run().switch_page("views/about.py").run()
    assert not app.exception
    shown = "".join(code.value for code in app.code)
    assert "http://127.0.0.1:4000/v1" in shown and "k" * 40 not in shown
    app.toggle[0].set_value(True).run()
    assert "k" * 40 in "".join(code.value for code in app.code)


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
