"""Deciding an answer: the same prompt gets the same answer, as long as the knobs say."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import zlib

from mock_engine.knobs import Knobs
from mock_engine.prompts import Json, conversation, prompt_tokens

_WORDS = re.findall(
    r"\w+",
    "def read write parse value result for item in list return if not else error path name count index data "
    "line token open close start stop first last next key map set test case with as import from class self",
)


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
            "prompt_tokens_details": {"cached_tokens": self.knobs.cached_tokens},
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
    _refuse_what_vllm_refuses(body, knobs.reasons)
    least = 0 if body.get("echo") else 1  # 0 scores the prompt
    if asked is not None and (not isinstance(asked, int) or asked < least):
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
        pieces = _pieces(json.dumps({"path": path, "body": body}))
    elif knobs.tool_call:
        pieces, finish = _pieces(json.dumps(knobs.tool_call.get("arguments", {}))), "tool_calls"
    else:
        pieces = _pieces(knobs.text)
        length = len(pieces) or knobs.completion_tokens
        limit = max(0, (asked or length + knobs.reasoning_tokens) - knobs.reasoning_tokens)
        if limit < length:
            length, finish = limit, "length"
        pieces = pieces[:length] or [f" {_WORDS[(seed + i * 7) % len(_WORDS)]}" for i in range(length)]
    if knobs.garbage:
        pieces = ["\ufffd!" for _ in pieces]
    thoughts = min(knobs.reasoning_tokens, asked or knobs.reasoning_tokens)
    reasoning = [f" {_WORDS[(seed + i) % len(_WORDS)]}" for i in range(thoughts)]
    return Answer(body, reasoning, pieces, knobs.tool_call, finish, count, knobs, serial, model)


def _refuse_what_vllm_refuses(body: Json, reasons: bool) -> None:
    """ValueError for the parameters that vLLM 0.32 answers with 400 although OpenAI takes them."""
    if body.get("tools") == [] and "messages" in body:
        raise ValueError("`tools` must not be an empty array.")
    if body.get("top_p") == 0:
        raise ValueError("top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)")
    if (body.get("n") or 1) > 1 and not body.get("temperature", 1):
        raise ValueError("n must be 1 when using greedy sampling, got 2.")
    if (body.get("min_tokens") or 0) > (body.get("max_tokens") or body.get("min_tokens") or 0):
        raise ValueError("min_tokens must be less than or equal to max_tokens.")
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        if reasons:
            if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
                raise ValueError("thinking.budget_tokens must be less than max_tokens")
            return
        raise ValueError(
            "thinking_token_budget is set but reasoning_config is not configured. Please set "
            "--reasoning-parser and/or --reasoning-config to use thinking_token_budget."
        )


def _pieces(text: str) -> list[str]:
    """`text` cut into one piece a token, every character kept."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)
