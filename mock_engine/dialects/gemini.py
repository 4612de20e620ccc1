"""POST /v1beta/models/NAME:generateContent and :streamGenerateContent: Google's Gemini API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mock_engine.dialects.base import Dialect, error_body, spliced, sse
from mock_engine.prompts import Json

PATH = "/v1beta/models"
_METHOD = re.compile(rf"{PATH}/([^/:]+):(stream)?[gG]enerateContent")


def request(path: str, body: Json) -> Json | None:
    """A request to this API as one to the chat API, the original in `gemini`; None if `path` is another's."""
    found = _METHOD.fullmatch(path)
    if not found:
        return None
    turns = body.get("contents", [])
    messages = [
        {"role": "assistant" if turn.get("role") == "model" else "user", "content": turn.get("parts", [])}
        for turn in turns
    ]
    limit = body.get("generationConfig", {}).get("max_output_tokens")
    return {
        "model": found[1],
        "stream": bool(found[2]),
        "messages": messages,
        "max_tokens": limit,
        "gemini": body,
    }


class Gemini(Dialect):
    """Google's Gemini API."""

    def _response(self, part: Json, finish: str | None, tokens: int) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if finish:
            candidate["finishReason"] = finish
        prompt = self.answer.prompt_tokens
        usage = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": tokens,
            "totalTokenCount": prompt + tokens,
        }
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": self.answer.model}

    def _finish(self) -> str:
        return "MAX_TOKENS" if self.answer.finish_reason == "length" else "STOP"

    def _call(self) -> Json:
        name = (self.answer.tool_call or {})["name"]
        return {"functionCall": {"name": name, "args": json.loads("".join(self.answer.pieces))}}

    def tokens(self) -> Iterator[bytes]:
        if self.answer.tool_call:
            yield sse(self._response(self._call(), None, self.answer.completion_tokens))
            return
        yield from spliced(self._response({"text": "\0"}, None, 1), self.answer.pieces)

    def last(self) -> bytes:
        return sse(self._response({"text": ""}, self._finish(), self.answer.completion_tokens))

    def error(self) -> bytes:
        return sse(error_body(500, self.answer.knobs.error_message))

    def whole(self) -> Json:
        part = self._call() if self.answer.tool_call else {"text": "".join(self.answer.pieces)}
        return self._response(part, self._finish(), self.answer.completion_tokens)
