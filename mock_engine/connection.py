"""A staged engine: looks like vLLM to routers and clients, with exact timing and faults on demand.

    python -m loadtests.staged --port 9001 --model coder --ttft-ms 200 --itl-ms 20

Served as vLLM 0.32 serves it: GET /health /v1/models /metrics, POST /tokenize /detokenize
/v1/chat/completions /v1/completions /v1/messages (and /count_tokens) /v1/responses, streaming and not. A
client that disconnects frees its slot at once.

Every field of `Knobs` is a command-line option (`--ttft-ms 200`), and can be changed while it runs:

- for one request, by `staged:{"ttft_ms": 500, "status": 429}` (JSON) in its last user message or prompt;
- for all that follow, by `POST /staged {"itl_ms": 5}`; with `"times": 2` for the next two generations only;
- `DELETE /staged` forgets the recorded requests and returns to the command line's values;
- `GET /staged` gives `{"knobs", "running", "waiting", "requests"}`. Each recorded request has `path`,
  `headers` (without credentials), `body`, `knobs` (those it ran under), `state` (waiting, running, finished,
  aborted, dropped), `chunks` sent so far, and `arrived_at`, `started_at`, `ended_at` in seconds of the
  monotonic clock. Health, metrics, models and /staged are not recorded; /tokenize is with
  `--record-tokenize true`.

Timing: token i of an answer is written at start + ttft_ms + i * itl_ms, where start is when the request got a
slot, so delays never add up. As in vLLM the role event comes together with the first token. Answers are
`completion_tokens` long unless max_tokens is less; the same prompt gets the same answer.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
import signal
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import h11

Json = dict[str, Any]

WORDS = re.findall(
    r"\w+",
    "def read write parse value result for item in list return if not else error path name count index data "
    "line token open close start stop first last next key map set test case with as import from class self",
)
TOKEN = re.compile(r"\w+|[^\w\s]")
OVERRIDE = re.compile(r"staged:\s*(?=\{)")
GENERATE = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
SECRET_HEADERS = {"authorization", "x-api-key", "api-key", "cookie"}
MAX_RECORDED = 5000


@dataclasses.dataclass(frozen=True)
class Knobs:
    """How the engine answers. Times are in milliseconds, positions count output tokens from 0."""

    ttft_ms: float = 0.0  # from getting a slot to the first token
    itl_ms: float = 0.0  # between tokens; 0 is as fast as the client reads
    completion_tokens: int = 16  # length of an answer when max_tokens does not cut it shorter
    text: str = ""  # answer with this text, one token a word
    echo: bool = False  # answer with {"path", "body"} of the request as JSON text; max_tokens is ignored
    reasoning_tokens: int = 0  # so many tokens of `reasoning` come before the content
    tool_call: dict[str, Any] | None = None  # {"name", "arguments"}: a tool call instead of content
    garbage: bool = False  # answer with text no model should give
    stall_at: int = -1  # before this token ...
    stall_ms: float = 0.0  # ... pause so long, once; later tokens are delayed by as much
    error_at: int = -1  # an error event in place of this token ends the stream, inside HTTP 200
    drop_at: int = -1  # the connection breaks off before this token
    no_done: bool = False  # the stream ends without its final event(s)
    no_usage: bool = False  # usage is left out even if asked for
    status: int = 200  # any other: answer with an error of this status
    error_message: str = "staged fault"
    retry_after: str = ""  # Retry-After of such an answer
    header_delay_ms: float = 0.0  # the response's head comes so late
    split_bytes: int = 0  # events are cut into network writes of so many bytes
    keep_alive: bool = True  # false closes the connection after each answer
    slots: int = 0  # at most so many run at once, the rest wait in order; 0 is no limit
    max_model_len: int = 8192  # a longer prompt + max_tokens is answered 400
    load_seconds: float = 0.0  # /health is 503 so long after the start
    healthy: bool = True  # false: /health is 503
    record_tokenize: bool = False

    def replaced(self, changes: Json) -> Knobs:
        """These knobs with `changes` applied; ValueError names a knob that is unknown or of a wrong type."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in fields:
                raise ValueError(f"no knob named {name!r}; knobs are {', '.join(fields)}")
            kind = fields[name].type
            fits = {
                "float": isinstance(value, int | float) and not isinstance(value, bool),
                "int": isinstance(value, int) and not isinstance(value, bool),
                "bool": isinstance(value, bool),
                "str": isinstance(value, str),
            }.get(str(kind), value is None or isinstance(value, dict))
            if not fits:
                raise ValueError(f"knob {name} takes a {kind}, not {value!r}")
        return dataclasses.replace(self, **changes)


def tokenize(text: str) -> list[int]:
    """Deterministic token ids of `text`: one for each word or punctuation mark."""
    return [zlib.crc32(token.encode()) % 50_000 for token in TOKEN.findall(text)]


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            text_of(part.get("text") or part.get("content")) for part in content if isinstance(part, dict)
        )
    return ""


def conversation(body: Json) -> list[Json]:
    """The messages of a request to a generation route or /tokenize; a prompt is one user message."""
    for field in ("messages", "input", "prompt"):
        value = body.get(field)
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            return [{"role": "user", "content": " ".join(str(token) for token in value)}]
        if isinstance(value, list):
            return [{"role": "user", "content": str(item)} for item in value]
        if value is not None:
            return [{"role": "user", "content": str(value)}]
    return []


def prompt_tokens(body: Json) -> list[int]:
    """The tokens of a request's prompt: 4 of markup a message, its text and tool calls, the tools offered."""
    if isinstance(body.get("prompt"), str):
        return tokenize(body["prompt"])
    tokens: list[int] = []
    for message in conversation(body):
        markup = f"im_start {message.get('role')} im_end ."
        calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
        tokens += tokenize(markup) + tokenize(text_of(message.get("content"))) + tokenize(calls)
    for extra in ("system", "instructions", "tools"):
        if body.get(extra):
            tokens += tokenize(body[extra] if isinstance(body[extra], str) else json.dumps(body[extra]))
    return tokens


def pieces_of(text: str) -> list[str]:
    """`text` cut into one piece a token, every character kept."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


@dataclasses.dataclass
class Answer:
    """What will be said: its pieces, one a token, and the numbers that go with them."""

    body: Json
    reasoning: list[str]
    pieces: list[str]
    tool_call: Json | None
    finish_reason: str
    prompt_tokens: int
    knobs: Knobs
    serial: int
    model: str
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def completion_tokens(self) -> int:
        """Tokens of the whole answer, reasoning included."""
        return len(self.reasoning) + len(self.pieces)

    def usage(self) -> Json:
        """OpenAI's usage object."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": total,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": None,
        }


def plan(body: Json, path: str, knobs: Knobs, serial: int, model: str) -> Answer:
    """Decide the answer to a request. ValueError if prompt and answer do not fit the context."""
    count = len(prompt_tokens(body))
    asked = next(
        (
            body[k]
            for k in ("max_completion_tokens", "max_tokens", "max_output_tokens")
            if body.get(k) is not None
        ),
        None,
    )
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise ValueError(f"max_tokens must be at least 1, got {asked}.")
    if count + (asked or 1) > knobs.max_model_len:
        raise ValueError(
            f"This model's maximum context length is {knobs.max_model_len} tokens. However, you requested "
            f"{asked or 1} output tokens and your prompt contains {count} input tokens. Please reduce the "
            "length of the input prompt or the number of requested output tokens."
        )
    seed = zlib.crc32(json.dumps(conversation(body)).encode())
    finish = "stop"
    if knobs.echo:
        pieces = pieces_of(json.dumps({"path": path, "body": body}))
    elif knobs.tool_call:
        pieces, finish = pieces_of(json.dumps(knobs.tool_call.get("arguments", {}))), "tool_calls"
    else:
        pieces = pieces_of(knobs.text)
        length = len(pieces) or knobs.completion_tokens
        limit = max(0, (asked or length + knobs.reasoning_tokens) - knobs.reasoning_tokens)
        if limit < length:
            length, finish = limit, "length"
        pieces = pieces[:length] or [f" {WORDS[(seed + i * 7) % len(WORDS)]}" for i in range(length)]
    if knobs.garbage:
        pieces = ["\ufffd!" for _ in pieces]
    thoughts = min(knobs.reasoning_tokens, asked or knobs.reasoning_tokens)
    reasoning = [f" {WORDS[(seed + i) % len(WORDS)]}" for i in range(thoughts)]
    return Answer(body, reasoning, pieces, knobs.tool_call, finish, count, knobs, serial, model)


def error_body(status: int, message: str) -> Json:
    """An error as vLLM gives it."""
    kinds = {
        400: "BadRequestError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    }
    kind = kinds.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def sse(data: Json | str, event: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + b"data: " + text.encode() + b"\n\n"


class Dialect:
    """How one route phrases an answer, as bytes of server-sent events or as one JSON object."""

    def __init__(self, answer: Answer) -> None:
        """Phrase `answer`."""
        self.answer = answer

    def first(self) -> bytes:
        """What comes just before the first token."""
        return b""

    def tokens(self) -> Iterator[bytes]:
        """The event(s) of each token."""
        raise NotImplementedError

    def last(self) -> bytes:
        """What comes just after the last token."""
        raise NotImplementedError

    def error(self) -> bytes:
        """An error inside the stream."""
        return sse(error_body(500, self.answer.knobs.error_message)) + sse("[DONE]")

    def whole(self) -> Json:
        """The answer when it is not streamed."""
        raise NotImplementedError


def spliced(template: Json, pieces: list[str], event: str = "") -> Iterator[bytes]:
    """Events equal to `template` with its string "\\0" replaced by each piece; serialised only once."""
    head, tail = sse(template, event).split(b'"\\u0000"')
    cache: dict[str, bytes] = {}
    for piece in pieces:
        if piece not in cache:
            cache[piece] = head + json.dumps(piece, ensure_ascii=False).encode() + tail
        yield cache[piece]


class _Chat(Dialect):
    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
        return {
            "id": f"chatcmpl-{self.answer.serial}",
            "object": "chat.completion.chunk",
            "created": self.answer.created,
            "model": self.answer.model,
            "choices": [choice],
        }

    def first(self) -> bytes:
        return sse(self._chunk({"role": "assistant", "content": ""}))

    def tokens(self) -> Iterator[bytes]:
        answer = self.answer
        yield from spliced(self._chunk({"reasoning": "\0"}), answer.reasoning)
        if not answer.tool_call:
            yield from spliced(self._chunk({"content": "\0"}), answer.pieces)
            return
        named = {"name": answer.tool_call["name"], "arguments": ""}
        opening = {"index": 0, "id": f"call-{answer.serial}", "type": "function", "function": named}
        later = {"index": 0, "function": {"arguments": "\0"}}
        start = sse(self._chunk({"tool_calls": [opening]}))
        for event in spliced(self._chunk({"tool_calls": [later]}), answer.pieces):
            yield start + event
            start = b""

    def last(self) -> bytes:
        ending = sse(self._chunk({}, self.answer.finish_reason))
        options = self.answer.body.get("stream_options") or {}
        if options.get("include_usage") and not self.answer.knobs.no_usage:
            ending += sse(self._chunk({}) | {"choices": [], "usage": self.answer.usage()})
        return ending + sse("[DONE]")

    def whole(self) -> Json:
        answer = self.answer
        message: Json = {
            "role": "assistant",
            "content": "".join(answer.pieces),
            "reasoning": None,
            "tool_calls": [],
        }
        if answer.reasoning:
            message["reasoning"] = "".join(answer.reasoning)
        if answer.tool_call:
            function = {"name": answer.tool_call["name"], "arguments": "".join(answer.pieces)}
            message["content"] = None
            message["tool_calls"] = [
                {"id": f"call-{answer.serial}", "type": "function", "function": function}
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        body = self._chunk({}) | {"object": "chat.completion", "choices": [choice]}
        return body if answer.knobs.no_usage else body | {"usage": answer.usage()}


class _Completion(Dialect):
    def _chunk(self, text: str, finish: str | None = None) -> Json:
        return {
            "id": f"cmpl-{self.answer.serial}",
            "object": "text_completion",
            "created": self.answer.created,
            "model": self.answer.model,
            "choices": [
                {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
            ],
        }

    def tokens(self) -> Iterator[bytes]:
        # vLLM puts finish_reason into the last token's event.
        events = list(spliced(self._chunk("\0"), self.answer.pieces))
        if events:
            events[-1] = sse(self._chunk(self.answer.pieces[-1], self.answer.finish_reason))
        yield from events

    def last(self) -> bytes:
        options = self.answer.body.get("stream_options") or {}
        ending = b"" if self.answer.pieces else sse(self._chunk("", self.answer.finish_reason))
        if options.get("include_usage") and not self.answer.knobs.no_usage:
            ending += sse(self._chunk("") | {"choices": [], "usage": self.answer.usage()})
        return ending + sse("[DONE]")

    def whole(self) -> Json:
        body = self._chunk("".join(self.answer.pieces), self.answer.finish_reason)
        return body if self.answer.knobs.no_usage else body | {"usage": self.answer.usage()}


class _Messages(Dialect):
    """Anthropic's Messages API."""

    def _usage(self, output: int) -> Json:
        return {"input_tokens": self.answer.prompt_tokens, "output_tokens": output}

    def _message(self) -> Json:
        return {
            "id": f"msg_{self.answer.serial}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.answer.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(0),
        }

    def _block(self) -> Json:
        if not self.answer.tool_call:
            return {"type": "text", "text": ""}
        return {
            "type": "tool_use",
            "id": f"call-{self.answer.serial}",
            "name": self.answer.tool_call["name"],
            "input": {},
        }

    def _stop_reason(self) -> str:
        return {"length": "max_tokens", "tool_calls": "tool_use"}.get(self.answer.finish_reason, "end_turn")

    def first(self) -> bytes:
        start = {"type": "content_block_start", "index": 0, "content_block": self._block()}
        return sse({"type": "message_start", "message": self._message()}, "message_start") + sse(
            start, "content_block_start"
        )

    def tokens(self) -> Iterator[bytes]:
        delta = {"type": "text_delta", "text": "\0"}
        if self.answer.tool_call:
            delta = {"type": "input_json_delta", "partial_json": "\0"}
        template = {"type": "content_block_delta", "index": 0, "delta": delta}
        yield from spliced(template, self.answer.reasoning + self.answer.pieces, "content_block_delta")

    def last(self) -> bytes:
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        usage = self._usage(self.answer.completion_tokens)
        return (
            sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
            + sse({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")
            + sse({"type": "message_stop"}, "message_stop")
        )

    def error(self) -> bytes:
        error = {"type": "internal_error", "message": self.answer.knobs.error_message}
        return sse({"type": "error", "error": error}, "error")

    def whole(self) -> Json:
        block = self._block()
        text = "".join(self.answer.pieces)
        block |= {"input": json.loads(text)} if self.answer.tool_call else {"text": text}
        usage = self._usage(self.answer.completion_tokens)
        return self._message() | {"content": [block], "stop_reason": self._stop_reason(), "usage": usage}


class _Responses(Dialect):
    """OpenAI's Responses API."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self._sequence = 0

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return sse({"type": kind, "sequence_number": self._sequence - 1} | fields, kind)

    def _response(self, status: str, output: list[Json]) -> Json:
        answer = self.answer
        usage = {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": len(answer.reasoning)},
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        }
        return {
            "id": f"resp_{answer.serial}",
            "object": "response",
            "created_at": answer.created,
            "model": answer.model,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": answer.body.get("instructions"),
            "metadata": None,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": "auto",
            "tools": answer.body.get("tools") or [],
            "usage": None if status == "in_progress" else usage,
        }

    def _item(self, status: str) -> Json:
        answer = self.answer
        text = "".join(answer.pieces) if status == "completed" else ""
        if answer.tool_call:
            call = {"type": "function_call", "id": f"fc_{answer.serial}", "call_id": f"call-{answer.serial}"}
            return call | {"name": answer.tool_call["name"], "arguments": text, "status": status}
        content = [self._part()] if status == "completed" else []
        return {
            "type": "message",
            "id": f"msg_{answer.serial}",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, text: str | None = None) -> Json:
        whole = "".join(self.answer.pieces) if text is None else text
        return {"type": "output_text", "text": whole, "annotations": [], "logprobs": None}

    def _final(self) -> Json:
        status = "incomplete" if self.answer.finish_reason == "length" else "completed"
        return self._response(status, [self._item("completed")])

    def first(self) -> bytes:
        response = self._response("in_progress", [])
        events = self._event("response.created", response=response)
        events += self._event("response.in_progress", response=response)
        events += self._event("response.output_item.added", output_index=0, item=self._item("in_progress"))
        if not self.answer.tool_call:
            place = {"item_id": f"msg_{self.answer.serial}", "output_index": 0, "content_index": 0}
            events += self._event("response.content_part.added", part=self._part(""), **place)
        return events

    def tokens(self) -> Iterator[bytes]:
        for piece in self.answer.pieces:
            if self.answer.tool_call:
                place = {"item_id": f"fc_{self.answer.serial}", "output_index": 0}
                yield self._event("response.function_call_arguments.delta", delta=piece, **place)
            else:
                place = {"item_id": f"msg_{self.answer.serial}", "output_index": 0, "content_index": 0}
                yield self._event("response.output_text.delta", delta=piece, logprobs=[], **place)

    def last(self) -> bytes:
        answer = self.answer
        text = "".join(answer.pieces)
        if answer.tool_call:
            place = {"item_id": f"fc_{answer.serial}", "output_index": 0, "name": answer.tool_call["name"]}
            events = self._event("response.function_call_arguments.done", arguments=text, **place)
        else:
            place = {"item_id": f"msg_{answer.serial}", "output_index": 0, "content_index": 0}
            events = self._event("response.output_text.done", text=text, logprobs=[], **place)
            events += self._event("response.content_part.done", part=self._part(), **place)
        events += self._event("response.output_item.done", output_index=0, item=self._item("completed"))
        return events + self._event("response.completed", response=self._final())

    def whole(self) -> Json:
        return self._final()


DIALECTS: dict[str, type[Dialect]] = dict(
    zip(GENERATE, (_Chat, _Completion, _Messages, _Responses), strict=True)
)


class Engine:
    """The state that connections share: knobs, slots, and the record of requests."""

    def __init__(self, models: tuple[str, ...], knobs: Knobs) -> None:
        """Serve `models` under `knobs`."""
        self.models = models
        self.original = knobs
        self.knobs = knobs
        self.temporary: tuple[Knobs, int] | None = None
        self.started = time.monotonic()
        self.requests: deque[Json] = deque(maxlen=MAX_RECORDED)
        self.serial = 0
        self.running = 0
        self.queue: deque[asyncio.Future[None]] = deque()

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        return self.knobs.healthy and time.monotonic() - self.started >= self.knobs.load_seconds

    def knobs_for(self, body: Json) -> Knobs:
        """The knobs in force for a request; one of those that `times` counts is used up."""
        knobs = self.knobs
        if self.temporary:
            knobs, left = self.temporary
            self.temporary = (knobs, left - 1) if left > 1 else None
        last = next(
            (text_of(m.get("content")) for m in reversed(conversation(body)) if m.get("role") == "user"), ""
        )
        if match := OVERRIDE.search(last):
            knobs = knobs.replaced(json.JSONDecoder().raw_decode(last, match.end())[0])
        return knobs

    async def acquire(self, slots: int) -> None:
        """Wait for a slot, in order of arrival."""
        if slots and (self.running >= slots or self.queue):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.queue.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place in self.queue:
                    self.queue.remove(place)
                elif place.done() and not place.cancelled():
                    self.release(slots)  # the slot was handed over, but its owner has left
                raise
        else:
            self.running += 1

    def release(self, slots: int) -> None:
        """Give a slot back, to the first that waits."""
        self.running -= 1
        while self.queue and (not slots or self.running < slots):
            place = self.queue.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)

    def metrics(self) -> str:
        """The gauges that routers and dashboards read, in Prometheus' text format."""
        label = f'{{engine="0",model_name="{self.models[0]}"}}'
        lines = []
        for name, value, what in (
            ("vllm:num_requests_running", self.running, "Number of requests in model execution batches."),
            ("vllm:num_requests_waiting", len(self.queue), "Number of requests waiting to be processed."),
            ("vllm:kv_cache_usage_perc", 0, "KV-cache usage. 1 means 100 percent usage."),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name}{label} {float(value)}"]
        return "\n".join(lines) + "\n"


class _Connection(asyncio.Protocol):
    """One client connection: h11 reads requests, answers are written as ready-made bytes."""

    transport: asyncio.Transport

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        self.request: h11.Request | None = None
        self.content: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio guarantees it
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.http.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            self._send_json(error.error_status_hint, error_body(error.error_status_hint, str(error)))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self.task:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # -- requests

    def _advance(self) -> None:
        while self.task is None:
            event = self.http.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED):
                return
            if isinstance(event, h11.Request):
                self.request, self.content = event, []
                if (b"expect", b"100-continue") in event.headers:
                    self._write(self.http.send(h11.InformationalResponse(status_code=100, headers=[])))
            elif isinstance(event, h11.Data):
                self.content.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.task = asyncio.get_running_loop().create_task(self._respond())
            else:
                self.transport.close()
                return

    async def _respond(self) -> None:
        assert self.request is not None  # noqa: S101 - set before the task is made
        method, path = self.request.method.decode(), self.request.target.decode().partition("?")[0]
        close = True
        try:
            close = await self._dispatch(method, path, b"".join(self.content))
        except (ValueError, KeyError, TypeError) as error:
            self._send_json(400, error_body(400, str(error)))
            close = False
        finally:
            self.task = None
            if close or self.http.our_state is not h11.DONE:
                self.transport.close()
        if not self.transport.is_closing() and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            self._advance()
        elif self.http.our_state is h11.MUST_CLOSE:
            self.transport.close()

    async def _dispatch(self, method: str, path: str, content: bytes) -> bool:
        """Answer one request; returns whether the connection is to be closed."""
        engine = self.engine
        if path == "/staged":
            self._control(method, content)
            return False
        body: Any = json.loads(content) if content else {}
        if not isinstance(body, dict):
            raise ValueError("the body must be a JSON object")
        if (method, path) == ("GET", "/health"):
            self._send(200 if engine.healthy() else 503, b"", "text/plain")
        elif (method, path) == ("GET", "/v1/models"):
            self._send_json(200, {"object": "list", "data": [self._card(name) for name in engine.models]})
        elif (method, path) == ("GET", "/metrics"):
            self._send(200, engine.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif (method, path) == ("POST", "/tokenize"):
            tokens = prompt_tokens(body)
            if engine.knobs.record_tokenize:
                self._record(path, body, engine.knobs)["state"] = "finished"
            self._send_json(
                200, {"count": len(tokens), "max_model_len": engine.knobs.max_model_len, "tokens": tokens}
            )
        elif (method, path) == ("POST", "/v1/messages/count_tokens"):
            self._send_json(200, {"input_tokens": len(prompt_tokens(body))})
        elif (method, path) == ("POST", "/detokenize"):
            self._send_json(200, {"prompt": " ".join(str(token) for token in body.get("tokens", []))})
        elif method == "POST" and path in DIALECTS:
            return await self._generate(path, body)
        else:
            self._send_json(404, {"detail": "Not Found"})
        return False

    def _card(self, name: str) -> Json:
        limit = self.engine.knobs.max_model_len
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": name,
            "parent": None,
            "max_model_len": limit,
            "permission": [],
        }

    def _control(self, method: str, content: bytes) -> None:
        engine = self.engine
        if method == "POST":
            changes = json.loads(content)
            times = changes.pop("times", None)
            if times:
                engine.temporary = (engine.knobs.replaced(changes), times)
            else:
                engine.knobs = engine.knobs.replaced(changes)
        elif method == "DELETE":
            engine.knobs, engine.temporary = engine.original, None
            engine.requests.clear()
        state = {
            "knobs": dataclasses.asdict(engine.knobs),
            "running": engine.running,
            "waiting": len(engine.queue),
        }
        self._send_json(200, state | {"requests": list(engine.requests)})

    def _record(self, path: str, body: Json, knobs: Knobs) -> Json:
        assert self.request is not None  # noqa: S101 - called while answering it
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in self.request.headers
            if name.decode() not in SECRET_HEADERS
        }
        record: Json = {
            "path": path,
            "headers": headers,
            "body": body,
            "knobs": dataclasses.asdict(knobs),
            "state": "waiting",
            "chunks": 0,
            "arrived_at": time.monotonic(),
            "started_at": None,
            "ended_at": None,
        }
        self.engine.requests.append(record)
        return record

    async def _generate(self, path: str, body: Json) -> bool:
        engine = self.engine
        engine.serial += 1
        knobs = engine.knobs_for(body)
        record = self._record(path, body, knobs)
        slots = knobs.slots
        held = False
        record_state = "aborted"
        try:
            if knobs.header_delay_ms and knobs.status != 200:
                await asyncio.sleep(knobs.header_delay_ms / 1000)
            if knobs.status != 200:
                extra = [("Retry-After", knobs.retry_after)] if knobs.retry_after else []
                self._send_json(knobs.status, error_body(knobs.status, knobs.error_message), extra)
                record_state = "finished"
                return not knobs.keep_alive
            model = body.get("model") or engine.models[0]
            if model not in engine.models:
                self._send_json(404, error_body(404, f"The model `{model}` does not exist."))
                record_state = "finished"
                return False
            dialect = DIALECTS[path](plan(body, path, knobs, engine.serial, model))
            await engine.acquire(slots)
            held = True
            record["state"], record["started_at"] = "running", time.monotonic()
            if body.get("stream"):
                record_state = await self._stream(dialect, knobs, record)
            else:
                record_state = await self._whole(dialect, knobs)
            return not knobs.keep_alive or record_state == "dropped"
        finally:
            if held:
                engine.release(slots)
            record["state"], record["ended_at"] = record_state, time.monotonic()

    async def _whole(self, dialect: Dialect, knobs: Knobs) -> str:
        answer = dialect.answer
        total = (
            knobs.ttft_ms
            + knobs.itl_ms * max(0, answer.completion_tokens - 1)
            + knobs.stall_ms
            + knobs.header_delay_ms
        )
        await asyncio.sleep(total / 1000)
        if knobs.drop_at >= 0:
            self.transport.abort()
            return "dropped"
        if knobs.error_at >= 0:
            self._send_json(500, error_body(500, knobs.error_message))
        else:
            self._send_json(200, dialect.whole())
        return "finished"

    async def _stream(self, dialect: Dialect, knobs: Knobs, record: Json) -> str:
        now = time.monotonic
        due = now() + knobs.ttft_ms / 1000
        if knobs.header_delay_ms:
            await asyncio.sleep(knobs.header_delay_ms / 1000)
        head = [("Content-Type", "text/event-stream; charset=utf-8"), ("Transfer-Encoding", "chunked")]
        if not knobs.keep_alive:
            head.append(("Connection", "close"))
        self._write(self.http.send(h11.Response(status_code=200, headers=head)))
        prefix = dialect.first()
        gap = knobs.itl_ms / 1000
        for index, event in enumerate(dialect.tokens()):
            if index == knobs.stall_at:
                due += knobs.stall_ms / 1000
            delay = due - now()
            if delay > 0:
                await asyncio.sleep(delay)
            elif index % 16 == 15:
                await asyncio.sleep(0)  # others get their turn, and a lost connection is noticed
            if not self.writable.is_set():
                await self.writable.wait()
            if index == knobs.drop_at:
                self.transport.abort()
                return "dropped"
            if index == knobs.error_at:
                self._write_chunk(prefix + dialect.error(), knobs)
                self._write(self.http.send(h11.EndOfMessage()))
                return "finished"
            if prefix:
                self._write_chunk(prefix, knobs)
                prefix = b""
            self._write_chunk(event, knobs)
            record["chunks"] = index + 1
            due += gap
        if not dialect.answer.completion_tokens:
            await asyncio.sleep(max(0.0, due - now()))
            self._write_chunk(prefix, knobs)
        if not knobs.no_done:
            self._write_chunk(dialect.last(), knobs)
        self._write(self.http.send(h11.EndOfMessage()))
        return "finished"

    # -- writing

    def _write(self, data: bytes | None) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def _write_chunk(self, event: bytes, knobs: Knobs) -> None:
        """One HTTP chunk, framed by hand: in h11 that would cost more than all the rest."""
        if not event:
            return
        framed = b"%x\r\n%b\r\n" % (len(event), event)
        size = knobs.split_bytes or len(framed)
        for start in range(0, len(framed), size):
            self._write(framed[start : start + size])

    def _send(
        self, status: int, content: bytes, kind: str, extra: list[tuple[str, str]] | None = None
    ) -> None:
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("Content-Type", kind), ("Content-Length", str(len(content))), *(extra or [])]
        head = self.http.send(h11.Response(status_code=status, headers=headers))
        body = self.http.send(h11.Data(data=content)) if content else b""
        self._write((head or b"") + (body or b"") + (self.http.send(h11.EndOfMessage()) or b""))

    def _send_json(self, status: int, body: Json, extra: list[tuple[str, str]] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", extra)


def flag(text: str) -> bool:
    """`true` or `false` on the command line."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"takes true or false, not {text!r}")
    return text == "true"


def parse_arguments(arguments: list[str]) -> tuple[str, int, str, Knobs]:
    """Host, port, model and knobs from the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.staged",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; it is printed")
    parser.add_argument("--model", default="coder", help="name, or names with commas (default coder)")
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": flag, "str": str}
    for field in dataclasses.fields(Knobs):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=readers.get(str(field.type), json.loads), default=field.default)
    options = vars(parser.parse_args(arguments))
    return options.pop("host"), options.pop("port"), options.pop("model"), Knobs(**options)


async def serve(host: str, port: int, model: str, knobs: Knobs) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once it listens."""
    loop = asyncio.get_running_loop()
    engine = Engine(tuple(model.split(",")), knobs)
    server = await loop.create_server(lambda: _Connection(engine), host, port, backlog=1024)
    print(f"staged engine {model!r} on http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(*parse_arguments(sys.argv[1:])))
