"""Each API's way of asking a model to think becomes what its family's template reads."""

import copy
from typing import Any

import pytest

from router.chat_families import Thinking, chat_family_of, read_chat_families
from router.errors import ApiError
from router.exchange import Exchange
from router.models import Model
from router.paths import CHAT, COMPLETIONS, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from router.steps.set_thinking import SetThinking
from tests.support import ROOT

Json = dict[str, Any]
FAMILIES = read_chat_families(ROOT / "config" / "chat_families.yaml")
QWEN, GPT_OSS, SEED = "Qwen/Qwen3.6-35B-A3B", "openai/gpt-oss-20b", "ByteDance/Seed-OSS-36B"
ON, OFF = {"enable_thinking": True}, {"enable_thinking": False}
BUDGET = {"type": "enabled", "budget_tokens": 2000}


def after(
    path: str, body: Json, model: str = QWEN, effort: str = "", reasons: bool = True
) -> tuple[Json, dict[str, str]]:
    """The body, and the headers."""
    exchange = Exchange(path, alias="coder", name="named", body=copy.deepcopy(body))
    models = {"coder": Model("coder", (), model, 4, 1000, reasons=reasons)}
    step = SetThinking(
        models, {"coder": chat_family_of(model, FAMILIES)}, {"named": effort} if effort else {}
    )
    step(exchange)
    return exchange.body, exchange.headers


@pytest.mark.parametrize(
    ("path", "body", "switch"),
    [
        (CHAT, {"reasoning_effort": "high"}, ON),
        (CHAT, {"reasoning_effort": "none"}, OFF),
        (CHAT, {"enable_thinking": True}, ON),
        (CHAT, {"enable_thinking": False}, OFF),
        (CHAT, {"thinking": {"type": "enabled"}}, ON),
        (CHAT, {"thinking": {"type": "disabled"}}, OFF),
        (CHAT, {"thinking": True}, ON),
        (CHAT, {"thinking": False}, OFF),
        (CHAT, {"reasoning": {"effort": "low"}}, ON),
        (CHAT, {"reasoning": {"enabled": False}}, OFF),
        (CHAT, {"reasoning_effort": "none", "thinking": {"type": "enabled"}}, OFF),
        (CHAT, {"reasoning": {"exclude": False}}, None),
        (CHAT, {}, None),
        (RESPONSES, {"reasoning": {"effort": "medium"}}, ON),
        (INPUT_TOKENS, {"reasoning": {"effort": "none"}}, OFF),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, None),
        (MESSAGES, {"thinking": BUDGET}, ON),
        (MESSAGES, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ON),
        (COUNT_TOKENS, {"thinking": {"type": "disabled"}}, OFF),
        (MESSAGES, {"output_config": {"effort": "high"}}, None),
        (COMPLETIONS, {"prompt": "x"}, None),
    ],
)
def test_what_is_asked_becomes_the_templates_switch(path: str, body: Json, switch: Json | None) -> None:
    got, headers = after(path, body)
    assert got.get("chat_template_kwargs") == switch
    told = headers.get("x-duoserve-set")
    assert told == (None if switch is None else f"thinking={'on' if switch == ON else 'off'}")
    if path == CHAT:  # vLLM has none of the others, and would switch on by an effort
        assert not got.keys() & {"reasoning_effort", "reasoning", "thinking", "enable_thinking"}
    if path in (MESSAGES, COUNT_TOKENS):
        assert "effort" not in got.get("output_config", {})
        assert got.get("thinking") == body.get("thinking")


def test_a_budget_and_silence_are_passed_on() -> None:
    assert after(CHAT, {"thinking": BUDGET})[0]["thinking_token_budget"] == 2000
    got, _ = after(CHAT, {"reasoning": {"max_tokens": 500, "exclude": True}})
    assert got["thinking_token_budget"] == 500 and got["include_reasoning"] is False
    assert "thinking_token_budget" not in after(CHAT, {"thinking": BUDGET, "reasoning_effort": "none"})[0]


@pytest.mark.parametrize(
    ("asked", "got"), [("none", "low"), ("minimal", "low"), ("medium", "medium"), ("max", "high")]
)
def test_a_template_that_knows_efforts_gets_the_nearest(asked: str, got: str) -> None:
    assert after(CHAT, {"reasoning_effort": asked}, GPT_OSS)[0] == {
        "reasoning_effort": got,
        "chat_template_kwargs": {},
    }
    assert after(RESPONSES, {"reasoning": {"effort": asked}}, GPT_OSS)[0]["reasoning"] == {"effort": got}
    asking = {"thinking": {"type": "adaptive"}, "output_config": {"effort": asked, "format": {}}}
    assert after(MESSAGES, asking, GPT_OSS)[0]["output_config"] == ({"effort": got, "format": {}})


def test_of_two_efforts_as_near_the_higher_one_is_taken() -> None:
    assert Thinking({}, {}, ("low", "high")).nearest("medium") == "high"


@pytest.mark.parametrize(
    ("model", "on", "off"),
    [
        (QWEN, ON, OFF),
        (SEED, {"thinking_budget": -1}, {"thinking_budget": 0}),
        ("deepseek-ai/DeepSeek-V3.2", {"thinking": True}, {"thinking": False}),
        ("zai-org/GLM-4.7", ON, OFF),
        ("google/gemma-4-26B", ON, OFF),
        ("nobody/unknown", ON, OFF),
    ],
)
def test_each_family_has_its_switch(model: str, on: Json, off: Json) -> None:
    assert after(CHAT, {"reasoning_effort": "low"}, model)[0]["chat_template_kwargs"] == on
    assert after(CHAT, {"enable_thinking": False}, model)[0]["chat_template_kwargs"] == off


def test_what_a_request_sets_in_the_template_stays() -> None:
    own = {"chat_template_kwargs": OFF, "reasoning_effort": "high"}
    assert after(CHAT, own)[0] == {"chat_template_kwargs": OFF}
    other = {"chat_template_kwargs": {"preserve_thinking": False}, "reasoning_effort": "high"}
    assert after(CHAT, other)[0]["chat_template_kwargs"] == {"preserve_thinking": False, **ON}


@pytest.mark.parametrize("body", [{}, {"reasoning_effort": "high"}, {"chat_template_kwargs": ON}])
def test_a_quick_name_never_thinks_and_a_thinking_one_always_does(body: Json) -> None:
    assert after(CHAT, body, effort="none")[0] == {"chat_template_kwargs": OFF}
    assert after(CHAT, body, effort="high")[0] == {"chat_template_kwargs": ON}
    assert after(MESSAGES, {"thinking": BUDGET}, effort="none")[0]["thinking"] == {"type": "disabled"}
    assert after(MESSAGES, {}, effort="high")[0]["thinking"] == {"type": "adaptive"}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (CHAT, {"reasoning_effort": "great"}, "reasoning_effort"),
        (CHAT, {"reasoning": {"effort": "great"}}, "reasoning.effort"),
        (RESPONSES, {"reasoning": {"effort": 3}}, "reasoning.effort"),
        (MESSAGES, {"output_config": {"effort": "great"}}, "output_config.effort"),
    ],
)
def test_an_effort_that_there_is_not_is_refused(path: str, body: Json, name: str) -> None:
    with pytest.raises(ApiError, match=r"must be one of none, minimal") as refused:
        after(path, body)
    assert refused.value.param == name


def test_a_model_that_does_not_reason_is_asked_nothing() -> None:
    asked: Json = {
        "reasoning_effort": "high",
        "reasoning": {"effort": "high"},
        "thinking": True,
        "enable_thinking": True,
        "thinking_token_budget": 9,
    }
    got, headers = after(CHAT, asked, reasons=False)
    assert got == {} and headers["x-duoserve-ignored"].split(", ") == list(asked)
    got, headers = after(MESSAGES, {"thinking": BUDGET, "output_config": {"effort": "high"}}, reasons=False)
    assert "thinking" not in got and headers["x-duoserve-ignored"] == "thinking, output_config.effort"
    got, headers = after(RESPONSES, {"reasoning": {"effort": "high"}}, reasons=False)
    assert got["reasoning"] == {"effort": "high"} and headers["x-duoserve-ignored"] == "reasoning.effort"
