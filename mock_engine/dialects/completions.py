"""POST /v1/completions: OpenAI's Completions API."""

from __future__ import annotations

from collections.abc import Iterator

from mock_engine.dialects.base import Dialect, spliced, sse
from mock_engine.prompts import Json


class Completions(Dialect):
    """OpenAI's Completions API."""

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
