"""The mock engine against a plain socket client: what other tests build on must itself be right."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from mock_engine import MockEngine
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"


class Mock:
    """A running mock engine and the few calls these tests make."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Authorization": "Bearer secret"})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def state(self) -> Any:
        return json.loads(self.call("GET", "/mock")[2])

    def arrivals(self, **knobs: Any) -> tuple[float, list[tuple[float, bytes]]]:
        """Stream one chat answer; returns when it was sent, and the arrival time of each socket read."""
        body = json.dumps({"model": "coder", "stream": True, "messages": user(**knobs)}).encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = f"POST {CHAT} HTTP/1.1\r\nHost: mock\r\nContent-Length: {len(body)}\r\n\r\n"
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
    return [{"role": "user", "content": f"{text} mock:{json.dumps(knobs)}"}]


def events(data: bytes) -> list[Any]:
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) if line != b"[DONE]" else "[DONE]" for line in lines]


def content(chunks: list[Any]) -> str:
    return "".join(
        c["choices"][0]["delta"].get("content") or "" for c in chunks if c != "[DONE]" and c.get("choices")
    )


@pytest.fixture(scope="module")
def process() -> Iterator[Mock]:
    with MockEngine(completion_tokens=8) as running:
        yield Mock(running.port)


@pytest.fixture
def mock(process: Mock) -> Mock:
    process.call("DELETE", "/mock")
    return process


def test_tokens_leave_when_they_should(mock: Mock) -> None:
    gap = 0.05
    sent, reads = mock.arrivals(
        ttft_ms=200, itl_ms=gap * 1000, completion_tokens=20, stall_at=10, stall_ms=150
    )
    times = [at - sent for at, data in reads for _ in range(data.count(b'"content":" '))]
    assert len(times) == 20
    due = [0.2 + gap * index + (0.15 if index >= 10 else 0) for index in range(20)]
    late = [at - then for at, then in zip(times, due, strict=True)]
    # Never early; on a busy machine any single token may be late, so lateness is judged by the median.
    assert min(late) >= -0.001
    assert median(late) < gap / 5


def test_role_event_comes_with_the_first_token_and_usage_last(mock: Mock) -> None:
    body = {"model": "coder", "stream": True, "messages": user(), "stream_options": {"include_usage": True}}
    *chunks, done = events(mock.call("POST", CHAT, body)[2])
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["usage"]["completion_tokens"] == 8 == len(content(chunks).split())
    tokenized = json.loads(mock.call("POST", "/tokenize", {"messages": body["messages"]})[2])
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
    mock: Mock, path: str, body: dict[str, Any]
) -> None:
    whole = mock.call("POST", path, {"model": "coder"} | body)[2].decode()
    streamed = mock.call("POST", path, {"model": "coder", "stream": True} | body)[2]
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


def test_echo_shows_the_request_that_arrived(mock: Mock) -> None:
    body = {"model": "coder", "messages": user(echo=True), "temperature": 0.5, "max_tokens": 1}
    answer = json.loads(mock.call("POST", CHAT, body)[2])
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"path": CHAT, "body": body}


def test_tool_call_and_reasoning(mock: Mock) -> None:
    call = {"name": "read_file", "arguments": {"path": "a.py", "line": 3}}
    body = {"model": "coder", "messages": user(tool_call=call, reasoning_tokens=2)}
    message = json.loads(mock.call("POST", CHAT, body)[2])["choices"][0]["message"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == call["arguments"]
    chunks = events(mock.call("POST", CHAT, body | {"stream": True})[2])[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(d.get("reasoning", "") for d in deltas) == message["reasoning"]
    arguments = "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if "tool_calls" in d)
    assert json.loads(arguments) == call["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_client_that_leaves_frees_its_slot(mock: Mock) -> None:
    mock.call("POST", "/mock", {"slots": 1})
    body = json.dumps({"model": "coder", "stream": True, "messages": user(itl_ms=1000)}).encode()
    socks = []
    for _ in range(3):
        sock = socket.create_connection(("127.0.0.1", mock.port), timeout=60)
        sock.sendall(
            b"POST %s HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body
        )
        socks.append(sock)
        wait_for(lambda: mock.state()["running"] + mock.state()["waiting"] == len(socks), "all have come")
    assert b'vllm:num_requests_waiting{engine="0",model_name="coder"} 2.0' in mock.call("GET", "/metrics")[2]
    socks[1].close()  # one that waits
    wait_for(lambda: mock.state()["waiting"] == 1, "the one that waited is gone")
    socks[0].close()  # the one that runs: the third takes over
    wait_for(lambda: mock.state()["requests"][2]["state"] == "running", "the third runs")
    socks[2].close()
    wait_for(lambda: mock.state()["running"] == 0, "nothing runs")
    assert [r["state"] for r in mock.state()["requests"]] == ["aborted"] * 3


def test_faults(mock: Mock) -> None:
    def stream(**knobs: Any) -> tuple[int, dict[str, str], bytes]:
        return mock.call("POST", CHAT, {"model": "coder", "stream": True, "messages": user(**knobs)})

    status, headers, data = stream(status=429, retry_after="7", error_message="busy")
    assert (status, headers["retry-after"], json.loads(data)["error"]["message"]) == (429, "7", "busy")
    assert [stream(api_key=key)[0] for key in ("secret", "another")] == [200, 401]
    status, _, data = stream(error_at=3)
    assert status == 200
    assert events(data)[-2]["error"]["code"] == 500
    assert len(content(events(data)[:-2]).split()) == 3
    assert b"[DONE]" not in stream(no_done=True)[2]
    assert stream(split_bytes=1)[2].count(b"data: ") == 11
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stream(drop_at=2)
    assert mock.state()["requests"][-1]["state"] == "dropped"
    began = time.monotonic()
    stream(header_delay_ms=100, completion_tokens=1)
    assert time.monotonic() - began >= 0.1


def test_health_follows_loading(mock: Mock) -> None:
    assert mock.call("GET", "/health")[0] == 200
    mock.call("POST", "/mock", {"healthy": False})
    assert mock.call("GET", "/health")[0] == 503


def test_control_applies_for_a_number_of_requests(mock: Mock) -> None:
    mock.call("POST", "/mock", {"status": 500, "times": 2})
    body = {"model": "coder", "messages": [{"role": "user", "content": "Hi"}]}
    assert [mock.call("POST", CHAT, body)[0] for _ in range(3)] == [500, 500, 200]


def test_bad_requests_are_answered_not_dropped(mock: Mock) -> None:
    status, _, data = mock.call("POST", "/mock", {"ttft": 1})
    assert status == 400
    assert b"no knob named 'ttft'" in data
    assert mock.call("POST", CHAT, {"model": "other", "messages": user()})[0] == 404
    assert mock.call("POST", CHAT, {"model": "coder", "messages": user("word " * 9000)})[0] == 400
    assert mock.call("GET", "/nowhere")[0] == 404


def test_requests_are_recorded_without_credentials(mock: Mock) -> None:
    body = {"model": "coder", "messages": [{"role": "user", "content": "Hi"}]}
    mock.call("POST", CHAT, body)
    (record,) = mock.state()["requests"]
    assert (record["path"], record["body"], record["state"]) == (CHAT, body, "finished")
    assert "secret" not in json.dumps(record)


def test_many_streams_at_once_stay_on_time(mock: Mock) -> None:
    """32 streams at 100 tokens a second: the mock engine is no bottleneck of what it measures."""
    took: list[float] = []

    def one() -> None:
        sent, reads = mock.arrivals(itl_ms=10, completion_tokens=100)
        took.append(reads[-1][0] - sent)

    one()
    threads = [threading.Thread(target=one) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took[1:])[16] < 1.5 * took[0]
