"""Turns of recorded sessions through the chat templates of the models: each begins as the one before it."""

import json
from functools import cache
from itertools import pairwise

import pytest

from loadtests.workload.sessions import Session, read_sessions
from router.chat_families import chat_family_of, read_chat_families
from router.exchange import Exchange
from router.prefix import read_rules
from router.steps.keep_prefix import KeepPrefix
from tests.support import ROOT
from tests.support.rendering import MODELS, tokens_of

SESSIONS = {
    session.name: session for session in read_sessions(ROOT / "loadtests" / "workload" / "sessions.jsonl")
}
FAMILIES = read_chat_families(ROOT / "config" / "chat_families.yaml")
RULES = read_rules(ROOT / "config" / "prefix.yaml")
LEAST = 0.95


@cache
def shares(name: str, template: str, kept: bool) -> list[float]:
    """The share of each request's prompt with which the next one begins, with or without the router."""
    session: Session = SESSIONS[name]
    step = KeepPrefix({"coder": chat_family_of(MODELS[template], FAMILIES)}, RULES)
    prompts = []
    for request in session.bodies():
        body = json.loads(json.dumps(request.body))
        if kept:
            exchange = Exchange(session.path, alias="coder", client="me", body=body)
            step(exchange)
            body = exchange.body
        prompts.append(tokens_of(session.path, body, template))
    return [_shared(one, two) / len(one) for one, two in pairwise(prompts)]


def _shared(one: list[int], two: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )


@pytest.mark.parametrize("template", MODELS)
@pytest.mark.parametrize("name", SESSIONS)
def test_a_turn_begins_with_nearly_all_of_the_one_before_it(name: str, template: str) -> None:
    found = shares(name, template, kept=True)
    if template == "qwen3.5":
        # At a user turn this template takes the thinking, even an empty one, out of the steps before it.
        added = [request["add"] for request in SESSIONS[name].requests[1:]]
        found = [share for share, add in zip(found, added, strict=True) if add[-1]["role"] != "user"]
    assert min(found) >= LEAST


@pytest.mark.parametrize(("template", "before"), [("qwen3", 0.9), ("qwen3.6", 0.9)])
def test_thinking_does_not_make_the_next_turn_cold(template: str, before: float) -> None:
    """An agent that thinks before every step, and its user's next question."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    step = [
        {"role": "assistant", "content": "", "reasoning_content": "hm " * 50, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "result " * 20},
    ]
    steps = [{"role": "system", "content": "rules " * 100}, {"role": "user", "content": "q"}, *step * 5]
    turns = [steps, [*steps, {"role": "assistant", "content": "done"}, {"role": "user", "content": "next"}]]

    def share(kept: bool) -> float:
        step = KeepPrefix({"coder": chat_family_of(MODELS[template], FAMILIES)}, RULES)
        prompts = []
        for messages in turns:
            body = {"messages": json.loads(json.dumps(messages))}
            exchange = Exchange("/v1/chat/completions", alias="coder", client="me", body=body)
            if kept:
                step(exchange)
            prompts.append(tokens_of(exchange.path, exchange.body, template))
        return _shared(*prompts) / len(prompts[0])

    assert share(kept=False) < before
    assert share(kept=True) >= LEAST


def test_without_the_router_reminders_and_dates_make_conversations_cold() -> None:
    assert min(shares("claude-code-reminders", "qwen3.6", kept=False)) < 0.8
    assert min(shares("qwen-code-dialogue", "qwen3-coder", kept=False)) < LEAST
