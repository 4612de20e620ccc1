"""One request, measured from the socket: what came, when, and what became of it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loadtests.sse import Event, Parser

Json = dict[str, Any]

# One ordinary character over and over is what broken kernels give ("!!!!"); rulers and indents are not.
REPEATED = re.compile(r"([^\s\-=_#*.~/\\|+>0])\1{39}")


@dataclass(frozen=True)
class Request:
    """What to ask. `kind` names it in results (completion, chat, agent, ...)."""

    kind: str
    path: str
    body: Json
    # Fewer tokens than these are a truncated answer.
    min_tokens: int = 1
    # Names a prompt whose answer is compared with the one it got alone.
    canary: str = ""


@dataclass
class Sample:
    """One measured request. Times are milliseconds from `started`, monotonic, None where not reached."""

    kind: str
    started: float  # seconds of time.monotonic(); in open-loop mode the time the request was due
    outcome: str = "ok"
    detail: str = ""
    users: int = 0
    target: str = "router"
    status: int = 0
    late: float = 0.0  # how long after `started` it was really sent
    ttft: float | None = None  # first delta of any kind
    first_content: float | None = None  # first content or tool call, after any reasoning
    total: float | None = None  # last event of the stream
    itl: list[float] = field(default_factory=list)  # gaps between the events that carry tokens
    events: int = 0  # events that carry tokens
    prompt_tokens: int | None = None  # of the usage event
    completion_tokens: int | None = None
    queue_wait: float | None = None  # as the router's headers tell
    queue_position: int | None = None
    retry_after: float | None = None
    truncated_messages: int = 0
    suffix_ignored: bool = False
    canary: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether this is a whole answer, whose times count."""
        return self.outcome == "ok"

    def as_json(self) -> Json:
        """Plain data with times rounded to the microsecond; the text only of a canary."""
        data = asdict(self)
        data["itl"] = [round(gap, 3) for gap in self.itl]
        for name in ("ttft", "first_content", "total", "late"):
            data[name] = None if data[name] is None else round(data[name], 3)
        data["text"] = self.text if self.canary else ""
        return data


def looks_like_garbage(text: str) -> bool:
    """Whether no model in order gives this: undecodable or control characters, or one character on and on."""
    if REPEATED.search(text):
        return True
    # A cut at max_tokens may leave one half character; more than that is corruption.
    strange = sum(
        character == "\ufffd" or unicodedata.category(character) in ("Cc", "Co", "Cn")
        for character in text
        if character not in "\n\r\t"
    )
    return strange > max(1, len(text) // 50)


class Client:
    """A kept-alive connection to one server. Not shared between concurrent requests."""

    def __init__(self, url: str, key: str, *, target: str = "router", timeout: float = 300.0) -> None:
        """`url` is the server's base (http://host:port); `timeout` is the longest silence, in seconds."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._target = target

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        self._connection.close()

    def measure(self, request: Request, *, users: int = 0, due: float | None = None) -> Sample:
        """Send `request` and read its answer to the end; failures are outcomes, never exceptions.

        `due` (monotonic seconds) is when an open-loop schedule wanted it sent: times count from there, so
        that a request sent late because others were slow does not look fast (coordinated omission).
        """
        body = json.dumps(request.body).encode()
        if self._connection.sock is None:
            try:
                self._connection.connect()
            except OSError as error:
                return self._failed(request, users, due, "connection", error)
        sent = time.monotonic()
        sample = Sample(request.kind, due or sent, users=users, target=self._target, canary=request.canary)
        sample.late = (sent - sample.started) * 1000
        reading = _Reading(sample)
        try:
            response = self._send(request.path, body)
            self._read(response, reading)
        except TimeoutError as error:
            sample.outcome, sample.detail = "timeout", str(error)
        except (OSError, http.client.HTTPException) as error:
            # Bytes had arrived: the answer broke off. None had: the connection failed.
            sample.outcome = "truncated" if sample.events else "connection"
            sample.detail = f"{type(error).__name__}: {error}"
        if not sample.ok or (response and response.will_close):
            self.close()
        if sample.ok:
            reading.judge(request)
        return sample

    def _failed(
        self, request: Request, users: int, due: float | None, outcome: str, error: Exception
    ) -> Sample:
        return Sample(
            request.kind,
            due or time.monotonic(),
            outcome,
            f"{type(error).__name__}: {error}",
            users,
            self._target,
            canary=request.canary,
        )

    def _send(self, path: str, body: bytes) -> http.client.HTTPResponse:
        try:
            self._connection.request("POST", self._prefix + path, body, self._headers)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server had closed an idle connection: every HTTP client sends once more on a new one.
            self.close()
            self._connection.request("POST", self._prefix + path, body, self._headers)
            return self._connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, reading: _Reading) -> None:
        sample = reading.sample
        sample.status = response.status
        sample.queue_wait = _number(response.headers.get("x-duoserve-queue-wait-ms"))
        position = _number(response.headers.get("x-duoserve-queue-position"))
        sample.queue_position = None if position is None else int(position)
        sample.retry_after = _number(response.headers.get("retry-after"))
        sample.truncated_messages = int(_number(response.headers.get("x-duoserve-truncated-messages")) or 0)
        sample.suffix_ignored = response.headers.get("x-duoserve-suffix") == "ignored"
        if response.status != 200:
            text = response.read().decode("utf-8", "replace")
            sample.total = (time.monotonic() - sample.started) * 1000
            sample.outcome = {429: "rejected", 503: "unavailable"}.get(
                response.status, f"http_{response.status}"
            )
            sample.detail = " ".join(text.split())[:300]
            return
        if "text/event-stream" not in response.headers.get("content-type", ""):
            reading.whole(json.loads(response.read() or b"{}"))
            return
        parser = Parser()
        while data := response.read1(65536):
            now = time.monotonic()
            for event in parser.feed(data):
                reading.event(event, now)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


class _Reading:
    """What the events of one answer add up to."""

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
        if usage := data.get("usage"):
            sample.prompt_tokens = usage.get("prompt_tokens")
            sample.completion_tokens = usage.get("completion_tokens")
        for choice in data.get("choices") or []:
            if sample.ttft is None:
                sample.ttft = sample.total
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta") or {}
            content = choice.get("text") or delta.get("content") or ""
            calls = delta.get("tool_calls")
            if content or calls:
                self._parts.append(content)
                self._tool_call = self._tool_call or bool(calls)
                if sample.first_content is None:
                    sample.first_content = sample.total
            if content or calls or delta.get("reasoning") or delta.get("reasoning_content"):
                sample.events += 1
                if self._last_token is not None:
                    sample.itl.append((now - self._last_token) * 1000)
                self._last_token = now

    def whole(self, body: Json) -> None:
        """An answer that was not streamed: only its end can be timed."""
        sample = self.sample
        sample.total = self._since(time.monotonic())
        choice = (body.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        self._parts.append(choice.get("text") or message.get("content") or "")
        self._tool_call = bool(message.get("tool_calls"))
        self._finish, self._done = choice.get("finish_reason") or "", True
        usage = body.get("usage") or {}
        sample.prompt_tokens = usage.get("prompt_tokens")
        sample.completion_tokens = usage.get("completion_tokens")
        sample.events = sample.completion_tokens or 0

    def judge(self, request: Request) -> None:
        """Decide whether what came is an answer."""
        sample = self.sample
        sample.text = "".join(self._parts)
        tokens = sample.completion_tokens if sample.completion_tokens is not None else sample.events
        if not self._finish or not self._done:
            missing = "finish_reason" if not self._finish else "[DONE]"
            sample.outcome, sample.detail = "truncated", f"the stream ended without {missing}"
        elif not sample.text.strip() and not self._tool_call:
            sample.outcome, sample.detail = "empty", "no content and no tool call"
        elif looks_like_garbage(sample.text):
            sample.outcome, sample.detail = "garbage", sample.text[:200]
        elif tokens < request.min_tokens:
            sample.outcome = "truncated"
            sample.detail = f"{tokens} tokens, at least {request.min_tokens} were asked for"


def get_json(url: str, key: str = "", timeout: float = 5.0) -> Any:
    """The JSON at `url`. Raises OSError if it cannot be reached or is not a 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ConnectionError(f"{parts.path} answered {response.status}")
        return json.loads(content)
    except (http.client.HTTPException, ValueError, socket.gaierror) as error:
        raise ConnectionError(f"{parts.path}: {error}") from error
    finally:
        connection.close()
