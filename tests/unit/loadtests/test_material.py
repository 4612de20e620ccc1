from __future__ import annotations

import ast
from itertools import pairwise
from random import Random

from loadtests.workload.material import AgentRun, Conversation, Editing, source_file
from loadtests.workload.suites import SUITES, RequestGenerator, Workload

MODELS = ("coder", "general")


def test_files_are_python_and_no_two_alike() -> None:
    texts = [source_file(Random(seed), 4).text for seed in range(40)]
    for text in texts:
        ast.parse(text)
    assert len({text[:120] for text in texts}) == 40


def test_the_same_seed_gives_the_same_requests() -> None:
    for suite in SUITES:
        first, second = (RequestGenerator(Workload(suite, MODELS, seed=7), 3) for _ in range(2))
        assert [first.next() for _ in range(10)] == [second.next() for _ in range(10)]
        other = RequestGenerator(Workload(suite, MODELS, seed=8), 3)
        assert [first.next() for _ in range(10)] != [other.next() for _ in range(10)]


def test_completions_ask_for_50_to_100_tokens_around_a_cursor() -> None:
    generator = RequestGenerator(Workload("completion", MODELS), 0)
    requests = [r for r in (generator.next() for _ in range(60)) if r.kind == "completion"]
    assert {50 <= r.body["max_tokens"] <= 100 for r in requests} == {True}
    assert all(len(r.body["prompt"]) > 500 and r.body["suffix"].startswith("\n") for r in requests)


def test_conversations_and_agents_grow_by_what_was_said() -> None:
    conversation = Conversation(Random(1))
    before = list(conversation.messages)
    conversation.answered("Yes.")
    assert conversation.messages[: len(before)] == before
    assert conversation.messages[-2] == {"role": "assistant", "content": "Yes."}
    agent = AgentRun(Random(1))
    for _ in range(4):
        agent.step()
    calls = [call["id"] for m in agent.messages for call in m.get("tool_calls", [])]
    assert calls == [m["tool_call_id"] for m in agent.messages if m["role"] == "tool"]


def test_typing_keeps_the_start_of_the_prompt_for_the_prefix_cache() -> None:
    editing = Editing(Random(5))
    prefixes = [editing.next()[0] for _ in range(4)]
    assert sum(b.startswith(a) for a, b in pairwise(prefixes)) >= 2
