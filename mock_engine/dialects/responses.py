"""POST /v1/responses: OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mock_engine.answers import Answer
from mock_engine.dialects.base import Dialect, sse
from mock_engine.prompts import Json


class Responses(Dialect):
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
            "input_tokens_details": {"cached_tokens": answer.knobs.cached_tokens},
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

    @property
    def _index(self) -> int:
        """The place of the answer's own item: after that of the reasoning."""
        return 1 if self.answer.reasoning else 0

    def _reasoning(self, text: str) -> Json:
        content = [{"type": "reasoning_text", "text": text}] if text else None
        return {"type": "reasoning", "id": f"rs_{self.answer.serial}", "summary": [], "content": content}

    def _final(self) -> Json:
        status = "incomplete" if self.answer.finish_reason == "length" else "completed"
        thought = "".join(self.answer.reasoning)
        return self._response(
            status, [*([self._reasoning(thought)] if thought else []), self._item("completed")]
        )

    def _opened(self) -> bytes:
        item = self._item("in_progress")
        events = self._event("response.output_item.added", output_index=self._index, item=item)
        if not self.answer.tool_call:
            place = {"item_id": f"msg_{self.answer.serial}", "output_index": self._index, "content_index": 0}
            events += self._event("response.content_part.added", part=self._part(""), **place)
        return events

    def announcement(self) -> bytes:
        response = self._response("in_progress", [])
        events = self._event("response.created", response=response)
        return events + self._event("response.in_progress", response=response)

    def first(self) -> bytes:
        if not self.answer.reasoning:
            return self._opened()
        return self._event("response.output_item.added", output_index=0, item=self._reasoning(""))

    def tokens(self) -> Iterator[bytes]:
        thought, between = "".join(self.answer.reasoning), b""
        if thought:
            place = {"item_id": f"rs_{self.answer.serial}", "output_index": 0, "content_index": 0}
            for piece in self.answer.reasoning:
                yield self._event("response.reasoning_text.delta", delta=piece, **place)
            between = self._event("response.reasoning_text.done", text=thought, **place)
            done = self._reasoning(thought)
            between += self._event("response.output_item.done", output_index=0, item=done) + self._opened()
        for piece in self.answer.pieces:
            if self.answer.tool_call:
                place = {"item_id": f"fc_{self.answer.serial}", "output_index": self._index}
                event = self._event("response.function_call_arguments.delta", delta=piece, **place)
            else:
                place = {
                    "item_id": f"msg_{self.answer.serial}",
                    "output_index": self._index,
                    "content_index": 0,
                }
                event = self._event("response.output_text.delta", delta=piece, logprobs=[], **place)
            yield between + event
            between = b""

    def last(self) -> bytes:
        answer = self.answer
        text = "".join(answer.pieces)
        if answer.tool_call:
            place = {
                "item_id": f"fc_{answer.serial}",
                "output_index": self._index,
                "name": answer.tool_call["name"],
            }
            events = self._event("response.function_call_arguments.done", arguments=text, **place)
        else:
            place = {"item_id": f"msg_{answer.serial}", "output_index": self._index, "content_index": 0}
            events = self._event("response.output_text.done", text=text, logprobs=[], **place)
            events += self._event("response.content_part.done", part=self._part(), **place)
        events += self._event(
            "response.output_item.done", output_index=self._index, item=self._item("completed")
        )
        return events + self._event("response.completed", response=self._final())

    def whole(self) -> Json:
        return self._final()
