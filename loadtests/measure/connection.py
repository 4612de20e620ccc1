"""Sends one request at a time and measures the answer at the socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from loadtests.measure.sample import Sample, looks_like_garbage
from loadtests.measure.sse import Event, Parser
from loadtests.workload.request import LoadRequest

OUTCOMES = {429: "rejected", 503: "unavailable"}


class Connection:
    """A kept-alive connection to one server. Not shared between concurrent requests."""

    def __init__(self, url: str, key: str, *, target: str = "router", timeout: float = 300.0) -> None:
        """`url` is the server's base (http://host:port); `timeout` is the longest silence, in seconds."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._target = target

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._http.close()

    def measure(self, request: LoadRequest, *, users: int = 0, due: float | None = None) -> Sample:
        """Send `request` and read its answer to the end; failures are outcomes, never exceptions.

        `due` (monotonic seconds) is when an open-loop schedule wanted it sent. Times start there, so that a
        request sent late because others were slow does not look fast (coordinated omission).
        """
        body = json.dumps(request.body).encode()
        failure: OSError | None = None
        if self._http.sock is None:
            try:
                self._http.connect()
            except OSError as error:
                failure = error
        sent = time.monotonic()
        sample = Sample(
            *(request.kind, due or sent),
            users=users,
            target=self._target,
            canary=request.canary,
            session=request.session,
            turn=request.turn,
            turns=request.turns,
        )
        if failure:
            sample.outcome, sample.detail = "connection", _described(failure)
            return sample
        sample.late = (sent - sample.started) * 1000
        answer = _Answer(sample)
        try:
            response = self._send(request.path, body)
            _read(response, answer)
        except TimeoutError as error:
            sample.outcome, sample.detail = "timeout", str(error)
        except (OSError, http.client.HTTPException) as error:
            # After the first tokens the answer broke off; before them the connection failed.
            sample.outcome = "truncated" if sample.events else "connection"
            sample.detail = _described(error)
        if not sample.ok or response.will_close:
            self.close()
        if sample.ok:
            answer.check(request)
        return sample

    def _send(self, path: str, body: bytes) -> http.client.HTTPResponse:
        try:
            self._http.request("POST", self._prefix + path, body, self._headers)
            return self._http.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server closed an idle connection: like every HTTP client, try once more on a new one.
            self.close()
            self._http.request("POST", self._prefix + path, body, self._headers)
            return self._http.getresponse()


def get_json(url: str, key: str = "", timeout: float = 5.0) -> Any:
    """The JSON at `url`. Raises OSError when it cannot be reached or the status is not 200."""
    try:
        return json.loads(get_text(url, key, timeout))
    except ValueError as error:
        raise ConnectionError(f"{urlsplit(url).path}: {error}") from error


def get_text(url: str, key: str = "", timeout: float = 5.0) -> str:
    """The text at `url`. Raises OSError when it cannot be reached or the status is not 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ConnectionError(f"{parts.path} answered {response.status}")
        return content.decode()
    except (http.client.HTTPException, UnicodeDecodeError, socket.gaierror) as error:
        raise ConnectionError(f"{parts.path}: {error}") from error
    finally:
        connection.close()


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _read(response: http.client.HTTPResponse, answer: _Answer) -> None:
    sample, headers = answer.sample, response.headers
    sample.status = response.status
    sample.queue_wait = _number(headers.get("x-duoserve-queue-wait-ms"))
    position = _number(headers.get("x-duoserve-queue-position"))
    sample.queue_position = None if position is None else int(position)
    sample.retry_after = _number(headers.get("retry-after"))
    sample.truncated_messages = int(_number(headers.get("x-duoserve-truncated-messages")) or 0)
    sample.suffix_ignored = headers.get("x-duoserve-suffix") == "ignored"
    if response.status != 200:
        text = response.read().decode("utf-8", "replace")
        sample.total = (time.monotonic() - sample.started) * 1000
        sample.outcome = OUTCOMES.get(response.status, f"http_{response.status}")
        sample.detail = " ".join(text.split())[:300]
        return
    if "text/event-stream" not in headers.get("content-type", ""):
        answer.whole(response.read())
        return
    parser = Parser()
    while data := response.read1(65536):
        now = time.monotonic()
        for event in parser.feed(data):
            answer.event(event, now)


class _Answer:
    """Fills in a sample from an answer as it arrives."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._last_token: float | None = None
        self._done = False
        self._finish = ""
        self._parts: list[str] = []
        self._tool_call = False

    def _since(self, now: float) -> float:
        return (now - self.sample.started) * 1000

    def event(self, event: Event, now: float) -> None:
        sample = self.sample
        if event.data == "[DONE]":
            self._done = True
            return
        sample.total = self._since(now)
        try:
            data = json.loads(event.data)
        except ValueError:
            sample.outcome, sample.detail = "error_event", f"not JSON: {event.data[:200]}"
            return
        if event.type == "error" or data.get("error"):
            sample.outcome, sample.detail = "error_event", json.dumps(data.get("error") or data)[:300]
            return
        if kind := data.get("type"):
            self._typed(kind, data, now)
            return
        self._usage(data.get("usage"))
        for choice in data.get("choices") or []:
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta") or {}
            content = choice.get("text") or delta.get("content") or ""
            reasoning = delta.get("reasoning") or delta.get("reasoning_content")
            self._delta(content, bool(delta.get("tool_calls")), bool(reasoning), now)

    def _typed(self, kind: str, data: dict[str, Any], now: float) -> None:
        """An event of Anthropic's Messages API or of OpenAI's Responses API."""
        delta = data.get("delta") or {}
        match kind:
            case "message_start":  # vLLM sends it with the first token
                self.sample.ttft = self.sample.total
                self._usage(data["message"].get("usage"))
            case "content_block_delta":
                text, arguments = delta.get("text") or "", "partial_json" in delta
                self._delta(text, arguments, "thinking" in delta, now)
            case "message_delta":
                self._finish = delta.get("stop_reason") or self._finish
                self._usage(data.get("usage"))
            case "message_stop":
                self._done = True
            case "response.output_text.delta":
                self._delta(str(delta), False, False, now)
            case "response.completed" | "response.incomplete":
                self._finish, self._done = kind, True
                self._usage(data["response"].get("usage"))
            case "response.failed":
                self.sample.outcome, self.sample.detail = "error_event", json.dumps(data["response"])[:300]
            case _ if kind.endswith(".delta"):
                self._delta("", "reasoning" not in kind, "reasoning" in kind, now)

    def _delta(self, content: str, calls: bool, reasoning: bool, now: float) -> None:
        sample = self.sample
        if sample.ttft is None:
            sample.ttft = sample.total
        if content or calls:
            self._parts.append(content)
            self._tool_call = self._tool_call or calls
            if sample.first_content is None:
                sample.first_content = sample.total
        if content or calls or reasoning:
            sample.events += 1
            if self._last_token is not None:
                sample.itl.append((now - self._last_token) * 1000)
            self._last_token = now

    def whole(self, content: bytes) -> None:
        """An answer that was not streamed: only its end can be timed."""
        sample = self.sample
        sample.total = self._since(time.monotonic())
        try:
            body = json.loads(content or b"{}")
        except ValueError:
            sample.outcome, sample.detail = "error_event", f"not JSON: {content[:200]!r}"
            return
        choice = (body.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        self._parts.append(choice.get("text") or message.get("content") or "")
        self._tool_call = bool(message.get("tool_calls"))
        self._finish, self._done = choice.get("finish_reason") or "", True
        self._usage(body.get("usage"))
        sample.events = sample.completion_tokens or 0

    def _usage(self, usage: dict[str, Any] | None) -> None:
        """The token counts, in the words of any of the APIs."""
        if not usage:
            return
        sample = self.sample
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or usage
        sample.cached_tokens = details.get("cached_tokens", details.get("cache_read_input_tokens"))
        sample.completion_tokens = usage.get("completion_tokens", usage.get("output_tokens"))
        sample.prompt_tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
        if (
            sample.prompt_tokens is not None
        ):  # which Anthropic counts without what is in the cache, or new there
            parts = ("cache_read_input_tokens", "cache_creation_input_tokens")
            sample.prompt_tokens += sum(usage.get(part) or 0 for part in parts)

    def check(self, request: LoadRequest) -> None:
        """Decide whether what arrived is a complete answer."""
        sample = self.sample
        sample.text = "".join(self._parts)
        tokens = sample.completion_tokens if sample.completion_tokens is not None else sample.events
        if not self._finish or not self._done:
            missing = "finish_reason" if not self._finish else "[DONE]"
            sample.outcome, sample.detail = "truncated", f"the stream ended without {missing}"
        elif not (request.any_text or sample.text.strip() or self._tool_call):
            sample.outcome, sample.detail = "empty", "no content and no tool call"
        elif not request.any_text and looks_like_garbage(sample.text):
            sample.outcome, sample.detail = "garbage", sample.text[:200]
        elif tokens < request.min_tokens:
            sample.outcome = "truncated"
            sample.detail = f"{tokens} tokens, at least {request.min_tokens} requested"
