"""The HTTP side: h11 reads the requests, answers are written as ready-made bytes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import h11

from mock_engine.answers import plan
from mock_engine.dialects import DIALECTS, gemini
from mock_engine.dialects.base import Dialect, error_body
from mock_engine.knobs import Knobs
from mock_engine.pooling import PATHS, pooled
from mock_engine.prompts import Json, prompt_tokens
from mock_engine.state import State

SECRET_HEADERS = {"authorization", "x-api-key", "api-key", "cookie"}


class Connection(asyncio.Protocol):
    """One client connection: h11 reads requests, answers are written as ready-made bytes."""

    transport: asyncio.Transport

    def __init__(self, engine: State) -> None:
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
        if path == "/mock":
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
        elif method == "POST" and path in (*DIALECTS, *PATHS):
            return await self._generate(path, body)
        elif method == "POST" and (asked := gemini.request(path, body)):
            return await self._generate(gemini.PATH, asked)
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

    def _carries(self, key: str) -> bool:
        assert self.request is not None  # noqa: S101 - called while answering it
        return (b"authorization", f"Bearer {key}".encode()) in self.request.headers

    async def _generate(self, path: str, body: Json) -> bool:
        engine = self.engine
        engine.serial += 1
        knobs = engine.knobs_for(body)
        record = self._record(path, body, knobs)
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
            if knobs.api_key and not self._carries(knobs.api_key):
                self._send_json(401, {"error": "Unauthorized"})
                record_state = "finished"
                return False
            model = body.get("model") or engine.models[0]
            if model not in engine.models:
                self._send_json(404, error_body(404, f"The model `{model}` does not exist."))
                record_state = "finished"
                return False
            answer: Dialect | Json
            if path in PATHS:
                answer = pooled(path, body, knobs.max_model_len, engine.serial, model)
            else:
                answer = DIALECTS[path](plan(body, path, knobs, engine.serial, model))
            prompt, size = _sizes(answer)
            await engine.acquire(knobs, size)
            held = True
            await engine.progress()
            record["state"], record["started_at"] = "running", time.monotonic()
            await engine.read(prompt, knobs.read_tokens_per_s)
            reading = time.monotonic() - record["started_at"] + knobs.ttft_ms / 1000
            engine.observe("request_prefill_time", reading)
            if isinstance(answer, dict):
                await asyncio.sleep(knobs.ttft_ms / 1000)
                engine.tokens += 1
                self._send_json(200, answer)
                record_state = "finished"
            elif body.get("stream"):
                record_state = await self._stream(answer, knobs, record)
            else:
                record_state = await self._whole(answer, knobs)
            return not knobs.keep_alive or record_state == "dropped"
        finally:
            if held:
                engine.release(knobs, size)
            record["state"], record["ended_at"] = record_state, time.monotonic()

    async def _whole(self, dialect: Dialect, knobs: Knobs) -> str:
        answer = dialect.answer
        total = (
            knobs.ttft_ms
            + self.engine.gap(knobs) * 1000 * max(0, answer.completion_tokens - 1)
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
            self.engine.tokens += answer.completion_tokens
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
        self._write_chunk(dialect.announcement(), knobs)
        prefix = dialect.first()
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
                self._write_chunk(dialect.error(), knobs)  # alone, if it comes before the first token
                self._write(self.http.send(h11.EndOfMessage()))
                return "finished"
            if prefix:
                self._write_chunk(prefix, knobs)
                prefix = b""
            if self.engine.knobs.hang:
                await self.engine.progress()
            self._write_chunk(event, knobs)
            self.engine.tokens += 1
            record["chunks"] = index + 1
            gap = self.engine.gap(knobs)
            due += gap
            if index:
                self.engine.observe("inter_token_latency", gap)
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


def _sizes(answer: Dialect | Json) -> tuple[int, int]:
    """The tokens of the prompt, and of prompt and answer together."""
    if isinstance(answer, dict):
        count = answer["usage"].get("prompt_tokens", 0)
        return count, count
    return answer.answer.prompt_tokens, answer.answer.prompt_tokens + answer.answer.completion_tokens
