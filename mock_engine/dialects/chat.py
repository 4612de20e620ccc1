"""POST /v1/chat/completions: OpenAI's Chat Completions API."""

from __future__ import annotations

from collections.abc import Iterator

from mock_engine.dialects.base import Dialect, spliced, sse
from mock_engine.prompts import Json


class Chat(Dialect):
    """OpenAI's Chat Completions API."""

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
