"""The staged engine against a plain socket client: what other tests build on must itself be right."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.loadtests.staged_process import staged_engine

CHAT = "/v1/chat/completions"


class Staged:
    """A running staged engine and the few calls these tests make."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Authorization": "Bearer secret"})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def state(self) -> Any:
        return json.loads(self.call("GET", "/staged")[2])

    def arrivals(self, **knobs: Any) -> tuple[float, list[tuple[float, bytes]]]:
        """Stream one chat answer; returns when it was sent, and the arrival time of each socket read."""
        body = json.dumps({"model": "coder", "stream": True, "messages": user(**knobs)}).encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = f"POST {CHAT} HTTP/1.1\r\nHost: staged\r\nContent-Length: {len(body)}\r\n\r\n"
            sent = time.monotonic()
            sock.sendall(head.encode() + body)
            reads: list[tuple[float, bytes]] = []
            while not reads or b"[DONE]" not in reads[-1][1]:
                data = sock.recv(65536)
                reads.append((time.monotonic(), data))
                if not data:
                    break
        return sent, reads


def user(text: str = "Hello.", **knobs: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{text} staged:{json.dumps(knobs)}"}]


def events(data: bytes) -> list[Any]:
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) if line != b"[DONE]" else "[DONE]" for line in lines]


def content(chunks: list[Any]) -> str:
    return "".join(
        c["choices"][0]["delta"].get("content") or "" for c in chunks if c != "[DONE]" and c.get("choices")
    )


@pytest.fixture(scope="module")
def process() -> Iterator[Staged]:
    with staged_engine("--completion-tokens", "8") as running:
        yield Staged(running.port)


@pytest.fixture
def staged(process: Staged) -> Staged:
    process.call("DELETE", "/staged")
    return process


def test_tokens_leave_when_they_should(staged: Staged) -> None:
    sent, reads = staged.arrivals(ttft_ms=200, itl_ms=20, completion_tokens=20, stall_at=10, stall_ms=150)
    times = [at - sent for at, data in reads for _ in range(data.count(b'"content":" '))]
    assert len(times) == 20
    for index, at in enumerate(times):
        due = 0.2 + 0.02 * index + (0.15 if index >= 10 else 0)
        # Never early; on a busy machine any single token may be late, so lateness is judged by the median.
        assert at >= due - 0.001
    late = sorted(at - (0.2 + 0.02 * i + (0.15 if i >= 10 else 0)) for i, at in enumerate(times))
    assert late[len(late) // 2] < 0.005


def test_role_event_comes_with_the_first_token_and_usage_last(staged: Staged) -> None:
    body = {"model": "coder", "stream": True, "messages": user(), "stream_options": {"include_usage": True}}
    *chunks, done = events(staged.call("POST", CHAT, body)[2])
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["usage"]["completion_tokens"] == 8 == len(content(chunks).split())
    tokenized = json.loads(staged.call("POST", "/tokenize", {"messages": body["messages"]})[2])
    assert tokenized["count"] == chunks[-1]["usage"]["prompt_tokens"] == len(tokenized["tokens"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 3}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 3}),
    ],
)
def test_streamed_and_whole_answers_are_the_same_and_honour_max_tokens(
    staged: Staged, path: str, body: dict[str, Any]
) -> None:
    whole = staged.call("POST", path, {"model": "coder"} | body)[2].decode()
    streamed = staged.call("POST", path, {"model": "coder", "stream": True} | body)[2]
    text = ""
    for event in events(streamed):
        if event == "[DONE]" or event.get("type", "delta").rpartition(".")[2] not in (
            "delta",
            "content_block_delta",
        ):
            continue
        delta = event.get("delta") if "delta" in event else event["choices"][0]
        text += (
            delta
            if isinstance(delta, str)
            else (delta.get("delta") or {}).get("content") or delta.get("text") or ""
        )
    assert len(text.split()) == 3
    assert text in whole
    assert 'length"' in whole or "max_tokens" in whole or "max_output_tokens" in whole


def test_echo_shows_the_request_that_arrived(staged: Staged) -> None:
    body = {"model": "coder", "messages": user(echo=True), "temperature": 0.5, "max_tokens": 1}
    answer = json.loads(staged.call("POST", CHAT, body)[2])
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"path": CHAT, "body": body}


def test_tool_call_and_reasoning(staged: Staged) -> None:
    call = {"name": "read_file", "arguments": {"path": "a.py", "line": 3}}
    body = {"model": "coder", "messages": user(tool_call=call, reasoning_tokens=2)}
    message = json.loads(staged.call("POST", CHAT, body)[2])["choices"][0]["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == call["arguments"]
    chunks = events(staged.call("POST", CHAT, body | {"stream": True})[2])[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(d.get("reasoning", "") for d in deltas) == message["reasoning"]
    arguments = "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if "tool_calls" in d)
    assert json.loads(arguments) == call["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_client_that_leaves_frees_its_slot(staged: Staged) -> None:
    staged.call("POST", "/staged", {"slots": 1})
    body = json.dumps({"model": "coder", "stream": True, "messages": user(itl_ms=1000)}).encode()
    socks = []
    for _ in range(3):
        sock = socket.create_connection(("127.0.0.1", staged.port), timeout=10)
        sock.sendall(
            b"POST %s HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body
        )
        socks.append(sock)
        wait_for(lambda: staged.state()["running"] + staged.state()["waiting"] == len(socks))
    assert (
        b'vllm:num_requests_waiting{engine="0",model_name="coder"} 2.0' in staged.call("GET", "/metrics")[2]
    )
    socks[1].close()  # one that waits
    wait_for(lambda: staged.state()["waiting"] == 1)
    socks[0].close()  # the one that runs: the third takes over
    wait_for(lambda: staged.state()["requests"][2]["state"] == "running")
    socks[2].close()
    wait_for(lambda: staged.state()["running"] == 0)
    assert [r["state"] for r in staged.state()["requests"]] == ["aborted"] * 3


def wait_for(condition: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true"
        time.sleep(0.005)


def test_faults(staged: Staged) -> None:
    def stream(**knobs: Any) -> tuple[int, dict[str, str], bytes]:
        return staged.call("POST", CHAT, {"model": "coder", "stream": True, "messages": user(**knobs)})

    status, headers, data = stream(status=429, retry_after="7", error_message="busy")
    assert (status, headers["retry-after"], json.loads(data)["error"]["message"]) == (429, "7", "busy")
    status, _, data = stream(error_at=3)
    assert status == 200
    assert events(data)[-2]["error"]["code"] == 500
    assert len(content(events(data)[:-2]).split()) == 3
    assert b"[DONE]" not in stream(no_done=True)[2]
    assert stream(split_bytes=1)[2].count(b"data: ") == 11
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stream(drop_at=2)
    assert staged.state()["requests"][-1]["state"] == "dropped"
    began = time.monotonic()
    stream(header_delay_ms=100, completion_tokens=1)
    assert time.monotonic() - began >= 0.1


def test_health_follows_loading(staged: Staged) -> None:
    assert staged.call("GET", "/health")[0] == 200
    staged.call("POST", "/staged", {"healthy": False})
    assert staged.call("GET", "/health")[0] == 503


def test_control_applies_for_a_number_of_requests(staged: Staged) -> None:
    staged.call("POST", "/staged", {"status": 500, "times": 2})
    body = {"model": "coder", "messages": [{"role": "user", "content": "Hi"}]}
    assert [staged.call("POST", CHAT, body)[0] for _ in range(3)] == [500, 500, 200]


def test_bad_requests_are_answered_not_dropped(staged: Staged) -> None:
    status, _, data = staged.call("POST", "/staged", {"ttft": 1})
    assert status == 400
    assert b"no knob named 'ttft'" in data
    assert staged.call("POST", CHAT, {"model": "other", "messages": user()})[0] == 404
    assert staged.call("POST", CHAT, {"model": "coder", "messages": user("word " * 9000)})[0] == 400
    assert staged.call("GET", "/nowhere")[0] == 404


def test_requests_are_recorded_without_credentials(staged: Staged) -> None:
    body = {"model": "coder", "messages": [{"role": "user", "content": "Hi"}]}
    staged.call("POST", CHAT, body)
    (record,) = staged.state()["requests"]
    assert (record["path"], record["body"], record["state"]) == (CHAT, body, "finished")
    assert "secret" not in json.dumps(record)


def test_many_streams_at_once_stay_on_time(staged: Staged) -> None:
    """32 streams at 100 tokens a second: the staged engine is no bottleneck of what it measures."""
    took: list[float] = []

    def one() -> None:
        sent, reads = staged.arrivals(itl_ms=10, completion_tokens=100)
        took.append(reads[-1][0] - sent)

    one()
    threads = [threading.Thread(target=one) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took[1:])[16] < 1.5 * took[0]
