import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.context import blocks, fit, most_tokens
from router.errors import ApiError

Json = dict[str, Any]
words = st.integers(0, 60).map(lambda n: " ".join(["word"] * n) or "w")


def tokens(messages: list[Json]) -> int:
    """As a chat template would have it: words and three for each message."""
    return sum(3 + len(json.dumps(message).split()) for message in messages)


async def count(messages: list[Json]) -> int:
    return tokens(messages)


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """Well-formed conversations in OpenAI's shape: turns with tool calls, and system messages anywhere."""
    messages: list[Json] = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 12))):
        messages.append({"role": "user", "content": f"{turn} {draw(words)}"})
        for step in range(draw(st.integers(0, 3))):
            ids = [f"call-{turn}-{step}-{i}" for i in range(draw(st.integers(1, 3)))]
            calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": i, "content": draw(words)} for i in ids]
        if draw(st.booleans()):
            messages.append({"role": "assistant", "content": draw(words)})
        if draw(st.integers(0, 9)) == 0:
            messages.append({"role": "developer", "content": draw(words)})
    return messages


def shorten(messages: list[Json], budget: int) -> list[Json]:
    return asyncio.run(fit(messages, tokens(messages), budget, count))[0]


@settings(max_examples=150, deadline=None)
@given(conversations(), st.integers(20, 600))
def test_what_is_kept(messages: list[Json], budget: int) -> None:
    if tokens(messages) <= budget:
        return
    last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
    must_stay = [messages[last_user], *([messages[0]] if messages[0]["role"] == "system" else [])]
    try:
        kept = shorten(messages, budget)
    except ApiError as error:
        assert error.code == "context_length_exceeded"
        fixed = [messages[i] for block in blocks(messages) if block.kept for i in block.indices]
        assert tokens(fixed) > budget
        return
    assert tokens(kept) <= budget
    stayed = {id(message) for message in kept}
    assert [m for m in messages if id(m) in stayed] == kept, "order or content changed"
    assert all(id(message) in stayed for message in must_stay)
    assert id(messages[-1]) in stayed
    called = {call["id"] for message in kept for call in message.get("tool_calls") or ()}
    answered = {message["tool_call_id"] for message in kept if message["role"] == "tool"}
    assert called == answered, "a call was parted from its result"


def test_old_reminders_go_before_any_turn() -> None:
    words = "word " * 30
    messages: list[Json] = [{"role": "system", "content": "prompt"}]
    for turn in range(6):
        messages += [
            {"role": "user", "content": f"<system-reminder>\nnote {turn} {words}</system-reminder>\nq{turn}"},
            {"role": "assistant", "content": f"a{turn}"},
            {"role": "system", "content": f"reminder {turn} {words}"},
        ]
    messages.append({"role": "user", "content": f"last <system-reminder>{words}</system-reminder>"})
    kept = shorten(messages, tokens(messages) - 300)
    text = json.dumps(kept)
    assert kept[0] == messages[0] and kept[-1] == messages[-1]
    assert all(f"q{turn}" in text and f"a{turn}" in text for turn in range(6)), (
        "a turn went before a reminder"
    )
    assert "note 0" not in text and "reminder 0" not in text
    assert "reminder 5" in text, "more went than had to"


def test_reminders_do_not_pile_up_among_an_agents_steps() -> None:
    messages: list[Json] = [
        {"role": "user", "content": "do it"},
        {"role": "system", "content": "environment"},
    ]
    for step in range(20):
        call = {"id": f"c{step}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{step}", "content": f"out {step}"})
        messages.append({"role": "system", "content": "remember " * 40})
    kept = shorten(messages, tokens(messages) // 2)
    assert kept[:2] == messages[:2]
    assert "out 0" in json.dumps(kept)
    assert sum(message["role"] == "system" for message in kept) < 12


def turns(number: int) -> list[Json]:
    found: list[Json] = [{"role": "system", "content": "s"}]
    for turn in range(number):
        found += [
            {"role": "user", "content": f"q{turn} " * 20},
            {"role": "assistant", "content": f"a{turn} " * 20},
        ]
    return [*found, {"role": "user", "content": "last"}]


def test_the_start_stays_the_same_for_several_turns() -> None:
    budget = 1000
    starts = []
    for number in range(30, 60):
        messages = turns(number)
        if tokens(messages) > budget:
            starts.append(shorten(messages, budget)[1]["content"].split()[0])
    changes = sum(a != b for a, b in pairwise(starts))
    assert len(starts) > 20
    assert changes <= len(starts) / 3
    assert starts[-1] != starts[0], "the conversation grew, so older turns had to go"


def test_oldest_turns_go_first_and_not_more_than_a_step_too_many() -> None:
    messages = turns(40)
    kept = shorten(messages, 1000)
    first = messages.index(kept[1])
    assert kept == [messages[0], *messages[first:]]
    assert tokens(kept) > 1000 * 0.5


def test_an_agents_oldest_steps_go_when_there_is_one_user_message() -> None:
    messages: list[Json] = [{"role": "user", "content": "do it"}]
    for step in range(30):
        call = {"id": f"c{step}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{step}", "content": "out " * 20})
    kept = shorten(messages, 500)
    assert kept[0] == messages[0]
    assert kept[-2:] == messages[-2:]
    assert "tool_calls" in kept[1]


def test_anthropic_tool_results_stay_with_their_calls() -> None:
    messages: list[Json] = [{"role": "user", "content": "old " * 50}]
    for step in range(10):
        messages.append(
            {"role": "assistant", "content": [{"type": "tool_use", "id": f"t{step}", "name": "f"}]}
        )
        result = {"type": "tool_result", "tool_use_id": f"t{step}", "content": "out " * 30}
        messages.append({"role": "user", "content": [result]})
    kept = shorten(messages, 300)
    assert kept[0] == messages[0]
    uses = {part["id"] for m in kept[1:] for part in m["content"] if part["type"] == "tool_use"}
    results = {
        part["tool_use_id"] for m in kept[1:] for part in m["content"] if part["type"] == "tool_result"
    }
    assert uses == results != set()


def test_too_long_alone_is_said_as_openai_says_it() -> None:
    with pytest.raises(ApiError) as caught:
        shorten([{"role": "user", "content": "word " * 500}], 100)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "context_length_exceeded",
        "messages",
    )
    assert "maximum context length" in caught.value.message


@given(st.text(max_size=300))
def test_the_bound_is_never_below_one_token_a_byte(text: str) -> None:
    assert most_tokens([{"role": "user", "content": text}], 1, tools=False) >= len(text.encode())
