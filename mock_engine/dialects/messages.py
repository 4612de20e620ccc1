"""POST /v1/messages: Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mock_engine.dialects.base import Dialect, spliced, sse
from mock_engine.prompts import Json


class Messages(Dialect):
    """Anthropic's Messages API."""

    def _usage(self, output: int) -> Json:
        """Anthropic's total is the sum of the three; what is new in the cache are whole blocks."""
        cached = self.answer.knobs.cached_tokens
        created = max(0, self.answer.prompt_tokens - cached) // 16 * 16
        return {
            "input_tokens": self.answer.prompt_tokens - cached - created,
            "output_tokens": output,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": created,
        }

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
