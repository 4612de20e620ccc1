"""Recorded sessions: what is kept of a client's requests, and the requests made of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.workload.sessions import Session, from_bodies, read_sessions
from loadtests.workload.suites import RequestGenerator, Workload
from tests.support import ROOT

Json = dict[str, Any]
SESSIONS = read_sessions(ROOT / "loadtests" / "workload" / "sessions.jsonl")


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_a_session_is_the_same_for_the_same_seed_and_has_no_text_of_its_own(session: Session) -> None:
    one, same, other = (json.dumps([r.body for r in session.bodies(seed)]) for seed in (1, 1, 2))
    assert one == same != other
    short = json.dumps([r.body for r in session.bodies(scale=0.1)])
    assert len(short) < len(one) / 2


def test_recording_keeps_what_two_requests_share_and_forgets_the_words() -> None:
    system = {"role": "system", "content": "secret words " * 10}
    question = {"role": "user", "content": "another secret"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"path": "x"}'}}
    steps = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "a secret result"}]
    bodies: list[tuple[float, Json]] = [
        (0.0, {"messages": [system, question]}),
        (2.5, {"messages": [system, question, *steps]}),
    ]
    line = from_bodies("s", "c", "chat", bodies)
    assert "secret" not in json.dumps(line)
    assert line["requests"][1]["keep"] == 2 and line["requests"][1]["think"] == 2.5
    assert [block["role"] for block in line["requests"][1]["add"]] == ["call", "result"]
    first, second = Session.of(line).bodies()
    assert second.body["messages"][:2] == first.body["messages"]
    assert [turn["role"] for turn in second.body["messages"]] == ["system", "user", "assistant", "tool"]


def test_a_mooncake_trace_shares_blocks_between_turns_and_sessions(tmp_path: Path) -> None:
    lines = [
        '{"session_id": "a", "timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]}',
        '{"session_id": "a", "delay": 500, "input_length": 1500, "output_length": 7, "hash_ids": [1, 2, 3]}',
        '{"session_id": "b", "timestamp": 9, "input_length": 600, "output_length": 5, "hash_ids": [1, 9]}',
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(lines))
    a, b = read_sessions(path)
    first, second = a.bodies()
    assert (second.think, second.answer) == (0.5, 7)
    texts = [
        [part["text"] for part in r.body["messages"][0]["content"]] for r in (first, second, *b.bodies())
    ]
    assert texts[0] == texts[1][:2]
    assert texts[2][0] == texts[0][0] and texts[2][1] != texts[0][1]


def test_a_line_that_is_not_a_session_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"session": "x"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1"):
        read_sessions(path)


@pytest.mark.parametrize("window", [8192, 32_768, 262_144])
def test_sessions_are_shortened_to_the_window_and_no_further(window: int) -> None:
    for session in SESSIONS:
        scale = session.scale(window)
        longest = max(len(json.dumps(request.body)) for request in session.bodies(scale=scale))
        assert longest / 4 < window * 0.75  # what the router cuts is not replayed
        assert scale == 1 or longest / 4 > window / 2


def test_each_developer_replays_every_session_with_its_pauses() -> None:
    workload = Workload("agent-replay", ("coder",), window=8192)
    for number in range(2):
        generator = RequestGenerator(workload, number)
        sent, pauses = [], []
        for _ in range(sum(len(session.requests) for session in SESSIONS)):
            sent.append(generator.next())
            pauses.append(generator.pause())
        names = [request.session.partition("/")[0] for request in sent if request.turn == 0]
        expected = [session.name for session in SESSIONS]
        assert names == expected[number:] + expected[:number]
        first = SESSIONS[number]
        assert pauses[: len(first.requests) - 1] == [request["think"] for request in first.requests[1:]]
        assert {request.kind for request in sent if request.turn} == {"turn"}
    # Each developer has a text of its own, so that nobody finds another's prompt in the cache.
    one, other = (RequestGenerator(Workload("agent-replay", ("coder",)), n) for n in (0, len(SESSIONS)))
    assert one.next().body != other.next().body
