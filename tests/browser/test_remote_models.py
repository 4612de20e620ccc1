"""A stack whose models are remote, started by `./run up`: it says who answers. No engine runs."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from playwright.sync_api import BrowserContext, expect

from mock_engine import MockEngine
from tests.browser.chat_page import Chat
from tests.support.ports import free_port
from tests.support.request_log import records
from tests.support.stack import Stack
from tests.support.waiting import PATIENCE, wait_for

SECRET = "sk-the-provider-s-own-key"
PROVIDERS = {"big": "openai", "hard": "anthropic"}


@pytest.fixture(scope="module")
def provider(folder: Path) -> Iterator[MockEngine]:
    with MockEngine("gpt-x,claude-x", port=free_port(), log=folder / "provider.log") as engine:
        yield engine


@pytest.fixture(scope="module")
def stack(folder: Path, provider: MockEngine) -> Iterator[Stack]:
    entries = {
        "big": {"model": "openai/gpt-x", "api_base": f"{provider.url}/v1", "api_key": "os.environ/BIG_KEY"},
        "hard": {"model": "anthropic/claude-x", "api_base": provider.url, "api_key": "os.environ/BIG_KEY"},
    }
    listed = [{"model_name": name, "litellm_params": entry} for name, entry in entries.items()]
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": listed}))
    made = Stack(folder / "home", LITELLM_CONFIG=str(config), BIG_KEY=SECRET)
    try:
        yield made
    finally:
        made.run("down")


@pytest.fixture(scope="module")
def told(stack: Stack) -> str:
    """What `up` says."""
    up = stack.run("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr + stack.logs()
    return up.stdout


def test_up_and_status_name_them_and_their_providers(stack: Stack, told: str) -> None:
    for name, provider in PROVIDERS.items():
        assert f"{name} (remote: {provider})" in told
    assert "Precision" not in told, "nothing is prepared for engines that do not run"
    assert '{"model": "big"' in told, "what to try is a request that is answered"
    shown = stack.run("status")
    assert shown.returncode == 0
    for name, provider in PROVIDERS.items():
        assert f"{name} remote ({provider})" in shown.stdout
    assert stack.status()["remote"] == PROVIDERS


def test_the_log_names_them_and_only_the_router_has_their_keys(
    stack: Stack, told: str, provider: MockEngine
) -> None:

    def answered() -> list[tuple[str, str]]:
        return [(record["alias"], record["provider"]) for record in records(stack.home)]

    for name in PROVIDERS:
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
        url = f"{stack.url}/v1/chat/completions"
        answer = httpx.post(url, json=body, headers=stack.headers, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
    wait_for(lambda: answered() == list(PROVIDERS.items()), "both are in the log")
    for process in stack.processes("ui"):
        assert SECRET not in str(process.environ())
    assert SECRET in str([process.environ() for process in stack.processes("router")])
    assert SECRET not in stack.logs() + told


def test_the_chat_page_says_who_answers(stack: Stack, told: str, context: BrowserContext) -> None:
    chat = Chat(context.new_page(), stack.ui_url).open()
    picker = chat.page.get_by_role("button", name=re.compile("^Model: "))
    expect(picker).to_have_accessible_name(re.compile("big.*remote: openai"))
    picker.click()
    expect(chat.page.get_by_role("option", name=re.compile("^hard"))).to_contain_text(
        "remote: anthropic answers, outside this service"
    )
    chat.page.keyboard.press("Escape")
    chat.ask("hi")
    chat.answered()
    chat.choose_model("hard")
    expect(picker).to_have_accessible_name(re.compile("hard.*remote: anthropic"))
