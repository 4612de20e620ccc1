"""Where the router says a prompt departs from the turn before, and which turn it takes for that one."""

import copy
from typing import Any

import pytest

from loadtests.workload.sessions import read_sessions
from router.chat_families import chat_family_of, read_chat_families
from router.exchange import Exchange
from router.prefix import read_rules
from router.recent_prompts import Loss, Prompt, RecentPrompts, expected_loss, true_loss
from router.steps.keep_prefix import KeepPrefix
from tests.support import ROOT
from tests.support.rendering import MODELS

Json = dict[str, Any]
KEY = ("ann", "coder")
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURNS: list[Json] = [
    {"role": "system", "content": "Be a good agent. " * 200},
    {"role": "user", "content": "question " * 100},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "result " * 300},
]
TOOLS = [{"type": "function", "function": {"name": f"tool_{i}", "description": "d" * 400}} for i in range(4)]
NEXT: Json = {"role": "user", "content": "next"}


def told(first: Json, second: Json, **more: int) -> Loss | None:
    """What is said of the second turn, where the engine counted a token for four characters of the first."""
    recent = RecentPrompts()
    one, two = Prompt.of(first), Prompt.of(second, **more)
    recent.remember(KEY, one, one.length // 4, None)
    before = recent.before(KEY, two)
    return expected_loss(before, two) if before else None


def changed(index: int, content: Any) -> list[Json]:
    return [*TURNS[:index], TURNS[index] | {"content": content}, *TURNS[index + 1 :], NEXT]


def test_a_turn_that_continues_loses_nothing() -> None:
    assert told({"messages": TURNS, "tools": TOOLS}, {"messages": [*TURNS, NEXT], "tools": TOOLS}) is None


def test_a_changed_system_prompt_is_told_with_its_place() -> None:
    text = TURNS[0]["content"]
    loss = told({"messages": TURNS}, {"messages": changed(0, text[:350] + "12:01" + text[350:])})
    assert loss
    # 350 characters, to the start of a block of 64.
    assert (loss.reason, loss.place, loss.cached) == ("system prompt", 80, 80)
    assert str(loss) == "80 of 1,603 tokens; prefix changed at token 80 (system prompt)"


@pytest.mark.parametrize(
    ("index", "reason"), [(1, "user turn"), (2, "assistant turn"), (3, "tool result")], ids=lambda x: str(x)
)
def test_a_changed_turn_is_told(index: int, reason: str) -> None:
    loss = told({"messages": TURNS}, {"messages": changed(index, "something else " * 60)})
    assert loss and loss.reason == reason


def test_tools_in_another_order_are_told() -> None:
    loss = told({"messages": TURNS, "tools": TOOLS}, {"messages": [*TURNS, NEXT], "tools": TOOLS[::-1]})
    assert loss and loss.reason == "tool definitions"
    assert loss.place * 4 == pytest.approx(len(TURNS[0]["content"]), abs=70)


def test_other_engines_and_turns_left_out_are_told() -> None:
    longer = {"messages": [*TURNS, NEXT]}
    loss = told({"messages": TURNS}, longer, engine=2)
    assert loss and "another engine" in str(loss) and loss.cached == 0
    turns = [NEXT | {"content": f"old {i} " * 200} for i in range(4)]
    loss = told({"messages": [*turns, NEXT]}, {"messages": [*turns[1:], NEXT, NEXT]}, left_out=1)
    assert loss and loss.reason == "older turns left out"


def test_what_a_model_is_not_shown_may_change() -> None:
    block = {"type": "text", "text": "t " * 500, "cache_control": {"type": "ephemeral"}}
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"path": "x"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "r " * 900}
    first = [
        {"role": "user", "content": [block]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    second: list[Json] = copy.deepcopy(first)
    del second[0]["content"][0]["cache_control"]
    second[1]["content"][0]["id"] = second[2]["content"][0]["tool_use_id"] = "toolu_2"
    assert told({"messages": first}, {"messages": [*second, NEXT]}) is None
    second[1]["content"][0]["input"] = {"path": "y"}
    loss = told({"messages": first}, {"messages": [*second, NEXT]})
    assert loss and loss.reason == "assistant turn"


def test_a_new_conversation_is_no_loss() -> None:
    other = [TURNS[0], {"role": "user", "content": "another question " * 50}]
    assert told({"messages": TURNS}, {"messages": other}) is None
    # Nor is one that its client has shortened, or another with as many turns.
    assert told({"messages": TURNS}, {"messages": [TURNS[0], NEXT]}) is None
    assert told({"messages": TURNS}, {"messages": [TURNS[0], *other, *other]}) is None


def test_each_of_several_conversations_has_its_own_turn_before() -> None:
    recent = RecentPrompts()
    for name in "abc":
        prompt = Prompt.of({"messages": [TURNS[0], {"role": "user", "content": name * 2000}]})
        recent.remember(KEY, prompt, 1000, None)
    turns = [TURNS[0], {"role": "user", "content": "a" * 2000}, TURNS[2], TURNS[3]]
    prompt = Prompt.of({"messages": turns})
    before = recent.before(KEY, prompt)
    assert before and expected_loss(before, prompt) is None
    assert recent.before(("bob", "coder"), prompt) is None


def test_an_engine_that_dropped_a_context_is_told_by_its_count_alone() -> None:
    prompt = Prompt.of({"messages": TURNS})
    prompt.tokens = 60_000
    assert true_loss(prompt, None, 59_000, 61_310) is None
    assert str(true_loss(prompt, None, 1_204, 61_310)) == (
        "1,204 of 61,310 tokens; no longer in the engine's cache"
    )
    expected = Loss("system prompt", 60_000, 87, 61_000, 87)
    assert str(true_loss(prompt, expected, 64, 61_310)) == (
        "64 of 61,310 tokens; prefix changed at token 87 (system prompt)"
    )
    # Found after all, of another conversation.
    assert true_loss(prompt, expected, 60_000, 61_310) is None


def test_memory_is_bounded_and_holds_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.recent_prompts._MOST_BLOCKS", 1000)
    recent = RecentPrompts()
    for i in range(200):
        prompt = Prompt.of({"messages": [{"role": "user", "content": f"{i} secret " * 500}]})
        recent.remember((f"client-{i % 100}", "coder"), prompt, 1000, None)
        assert not any(part.text for part in prompt.parts)
        recent.remember((f"empty-{i}", "coder"), Prompt.of({"messages": []}), 1, None)
    kept = [prompt for prompts in recent._recent.values() for prompt in prompts]
    assert 0 < sum(prompt.size() for prompt in kept) == recent._blocks <= 1000
    assert len(recent._recent) < 30


@pytest.mark.parametrize(
    "session", read_sessions(ROOT / "loadtests" / "workload" / "sessions.jsonl"), ids=lambda s: s.name
)
def test_recorded_sessions_lose_nothing_and_are_never_taken_for_new(session: Any) -> None:
    families = read_chat_families(ROOT / "config" / "chat_families.yaml")
    keep = KeepPrefix(
        {"coder": chat_family_of(MODELS["qwen3.6"], families)}, read_rules(ROOT / "config" / "prefix.yaml")
    )
    recent = RecentPrompts()
    for number, request in enumerate(session.bodies()):
        exchange = Exchange(session.path, alias="coder", client="ann", body=copy.deepcopy(request.body))
        keep(exchange)
        prompt = Prompt.of(exchange.body)
        before = recent.before(KEY, prompt)
        assert (before is None) == (number == 0)
        assert before is None or expected_loss(before, prompt) is None
        recent.remember(KEY, prompt, prompt.length // 4, before)
