"""What changes from request to request leaves the front of the prompt, in each API."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from router.chat_families import ChatFamily, chat_family_of, read_chat_families
from router.errors import BadSettings
from router.exchange import Exchange
from router.paths import CHAT, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from router.prefix import read_rules
from router.steps.keep_prefix import KeepPrefix
from tests.support import ROOT

Json = dict[str, Any]
RULES = read_rules(ROOT / "config" / "prefix.yaml")
FAMILIES = read_chat_families(ROOT / "config" / "chat_families.yaml")
STRICT = ChatFamily("strict", ("x",), inline_system=False)
IN_PLACE = ChatFamily("in place", ("x",), inline_system=True)
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def kept(path: str, body: Json, family: ChatFamily | None = STRICT) -> tuple[Json, Exchange]:
    exchange = Exchange(path, alias="coder", client="me", body=copy.deepcopy(body))
    KeepPrefix({"coder": family}, RULES)(exchange)
    return exchange.body, exchange


@pytest.mark.parametrize(
    ("path", "key", "thought", "left"),
    [
        (
            CHAT,
            "messages",
            {"role": "assistant", "content": "a", "reasoning": "t"},
            {"role": "assistant", "content": "a"},
        ),
        (
            CHAT,
            "messages",
            {"role": "assistant", "content": None, "reasoning_content": "t", "tool_calls": [CALL]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ),
        (
            CHAT,
            "messages",
            {"role": "assistant", "content": "<think>\nt\n</think>\n\na"},
            {"role": "assistant", "content": "a"},
        ),
        (
            MESSAGES,
            "messages",
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ),
        (
            MESSAGES,
            "messages",
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
            None,
        ),
        (RESPONSES, "input", {"type": "reasoning", "summary": [], "content": []}, None),
    ],
)
def test_thinking_leaves_the_history_where_the_template_will_take_it_out(
    path: str, key: str, thought: Json, left: Json | None
) -> None:
    question = {"role": "user", "content": "<think>mine</think>"}
    turns = [question, thought, question]
    dropping = ChatFamily("dropping", ("x",), inline_system=True, drops_thinking=True)
    got, _ = kept(path, {key: turns}, dropping)
    assert got[key] == [question, *([left] if left else []), question]
    assert kept(path, {key: turns}, IN_PLACE)[0][key] == turns


@pytest.mark.parametrize("role", ["system", "developer"])
def test_an_inline_turn_becomes_text_of_the_user_turn_before_it(role: str) -> None:
    turns = [
        {"role": "system", "content": "prompt"},
        {"role": "user", "content": "question"},
        {"role": role, "content": "note"},
        {"role": "assistant", "content": "answer"},
    ]
    body, _ = kept(CHAT, {"messages": turns})
    assert body["messages"] == [
        turns[0],
        {"role": "user", "content": "question\n\n<system-reminder>\nnote\n</system-reminder>"},
        turns[3],
    ]


def test_an_inline_turn_after_an_answer_is_text_of_the_next_user_turn_or_stands_alone() -> None:
    turns = [
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "system", "content": "<system-reminder>\nnote\n</system-reminder>"},
    ]
    note = "<system-reminder>\nnote\n</system-reminder>"
    assert kept(CHAT, {"messages": turns})[0]["messages"][2] == {"role": "user", "content": note}
    turns.append({"role": "user", "content": "q2"})
    assert kept(CHAT, {"messages": turns})[0]["messages"][2:] == [
        {"role": "user", "content": f"{note}\n\nq2"}
    ]


def test_an_inline_turn_never_parts_a_call_from_its_result_nor_adds_a_user_turn_among_steps() -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "system", "content": "before"},
        {"role": "tool", "tool_call_id": "c1", "content": "result"},
        {"role": "system", "content": "after"},
    ]
    body, _ = kept(CHAT, {"messages": turns})
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "tool"]
    text = body["messages"][2]["content"]
    assert text.index("before") < text.index("result") < text.index("after")


def test_a_messages_turn_with_results_takes_it_into_the_last_one() -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "result"}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "system", "content": [{"type": "text", "text": "environment"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
        {"role": "user", "content": [result]},
        {"role": "system", "content": "note"},
    ]
    body, _ = kept(MESSAGES, {"messages": turns})
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    reminder = {"type": "text", "text": "<system-reminder>\nenvironment\n</system-reminder>"}
    assert body["messages"][0]["content"] == [{"type": "text", "text": "q"}, reminder]
    (block,) = body["messages"][2]["content"]
    assert (
        block["type"] == "tool_result"
        and block["content"].startswith("result")
        and "note" in block["content"]
    )


@pytest.mark.parametrize("path", [RESPONSES, INPUT_TOKENS])
def test_items_of_the_responses_api(path: str) -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "prompt"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "result"},
        {"role": "developer", "content": [{"type": "input_text", "text": "note"}]},
    ]
    body, _ = kept(path, {"input": items})
    assert body["input"][:3] == items[:3]
    assert body["input"][3]["output"] == "result\n\n<system-reminder>\nnote\n</system-reminder>"
    assert len(body["input"]) == 4
    body, _ = kept(path, {"input": items, "instructions": "first"}, IN_PLACE)
    assert body["instructions"] == "first\n\nprompt"
    assert [item.get("role") for item in body["input"]] == ["user", None, None, "system"]


def test_a_template_that_takes_system_turns_anywhere_gets_them() -> None:
    turns = [
        {"role": "system", "content": "prompt"},
        {"role": "user", "content": "q"},
        {"role": "system", "content": "note"},
    ]
    assert kept(CHAT, {"messages": turns}, IN_PLACE)[0]["messages"] == turns
    turns[2]["role"] = "developer"
    # vLLM would move all to the front if one were a developer's.
    assert kept(CHAT, {"messages": turns}, IN_PLACE)[0]["messages"][2] == {
        "role": "system",
        "content": "note",
    }


def test_the_billing_header_is_dropped_and_named() -> None:
    header = "x-anthropic-billing-header: cc_version=2.1.332.c5a; cc_entrypoint=cli; cch=1f2e3;"
    system = [{"type": "text", "text": header}, {"type": "text", "text": "prompt"}]
    body, exchange = kept(MESSAGES, {"system": system, "messages": [{"role": "user", "content": "q"}]})
    assert body["system"] == system[1:]
    assert exchange.headers["x-duoserve-ignored"] == "billing-header"
    turns = [{"role": "system", "content": f"{header}\nprompt"}, {"role": "user", "content": "q"}]
    assert kept(CHAT, {"messages": turns})[0]["messages"][0]["content"] == "prompt"


DATES = [
    "Today's date: Sat Nov 28 2026",
    "  Today's date: 2026-11-28",
    "- Current date: 2026-11-28",
    "Today is Saturday, November 28, 2026.",
    "Current time: 2026-11-28T07:05:04Z",
    "The current date and time is 28.11.2026 07:05",
    "Current date and time: 11/28/2026, 7:05 AM (UTC)",
    "<total_tokens>14950000 tokens left</total_tokens>",
]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, COUNT_TOKENS, RESPONSES])
@pytest.mark.parametrize("line", DATES)
def test_a_line_that_changes_goes_to_the_end(line: str, path: str) -> None:
    prompt = f"You are an agent.\n{line}\nBe brief."
    turn = {"role": "user", "content": "question"}
    bodies: dict[str, Json] = {
        CHAT: {"messages": [{"role": "system", "content": prompt}, turn]},
        MESSAGES: {"system": prompt, "messages": [turn]},
        COUNT_TOKENS: {"system": [{"type": "text", "text": prompt}], "messages": [turn]},
        RESPONSES: {"instructions": prompt, "input": [turn]},
    }
    body, exchange = kept(path, bodies[path])
    text = json.dumps(body, ensure_ascii=False)
    assert "You are an agent.\\nBe brief." in text
    last = body["input" if path == RESPONSES else "messages"][-1]["content"]
    assert last == f"question\n\n<system-reminder>\n{line.strip()}\n</system-reminder>"
    assert exchange.headers["x-duoserve-moved"]


@pytest.mark.parametrize(
    "prompt",
    [
        "Today is a good day to write tests.\nBe brief.",
        "Sort the rows by current date and time.",
        "Answer with the session ID of the user.",
        "The field is `Current date`.",
    ],
)
def test_other_text_stays(prompt: str) -> None:
    turns = [{"role": "system", "content": prompt}, {"role": "user", "content": "Today's date: 2026-11-28?"}]
    body, exchange = kept(CHAT, {"messages": turns})
    assert body["messages"] == turns and not exchange.headers


def test_the_date_that_qwen_code_takes_back_does_not_change_earlier_turns() -> None:
    date = "The current date is: Saturday, November 28, 2026. Note: may differ."
    note = f"<system-reminder>\n{date}\n</system-reminder>\n"
    question = {"type": "text", "text": "question"}
    with_date = {"role": "user", "content": [{"type": "text", "text": note}, question]}
    first, _ = kept(CHAT, {"messages": [with_date]})
    steps = [
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
    ]
    second, _ = kept(CHAT, {"messages": [with_date, *steps]})
    third, _ = kept(CHAT, {"messages": [{"role": "user", "content": [question]}, *steps, with_date]})
    assert first["messages"][0]["content"][0] == question
    assert (
        second["messages"][:2] == third["messages"][:2] == [{"role": "user", "content": [question]}, steps[0]]
    )
    assert "November 28" in second["messages"][-1]["content"]


def test_tools_keep_the_order_of_first_sight_for_each_client() -> None:
    step = KeepPrefix({"coder": STRICT}, RULES)

    def order(names: str, client: str = "me") -> str:
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        body: Json = {"messages": [{"role": "user", "content": "q"}], "tools": tools}
        exchange = Exchange(CHAT, alias="coder", client=client, body=body)
        step(exchange)
        return "".join(tool["function"]["name"] for tool in exchange.body["tools"])

    assert order("cab") == "cab"
    assert order("bca") == "cab"
    assert order("azcb") == "cabz", "a new tool goes behind those that are cached"
    assert order("ba") == "ab"
    assert order("abc", client="you") == "abc"


@pytest.mark.parametrize(
    ("model", "in_place"),
    [
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", True),
        ("Qwen/Qwen3.6-35B-A3B-FP8", False),
        ("models/smollm2-135m-instruct-w8a8", True),
        ("mistralai/Mistral-7B", None),
    ],
)
def test_the_family_of_a_model(model: str, in_place: bool | None) -> None:
    family = chat_family_of(model, FAMILIES)
    assert (family and family.inline_system) == in_place


@pytest.mark.parametrize("read", [read_rules, read_chat_families])
def test_a_table_that_cannot_be_used_is_named(read: Any, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("dropped: {a: {where: front}}\nmoved: {}\n")
    with pytest.raises(BadSettings, match=r"table\.yaml cannot be used"):
        read(table)
