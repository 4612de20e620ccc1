"""Reading a request: its messages, their text, and its tokens."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

Json = dict[str, Any]

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokenize(text: str) -> list[int]:
    """Deterministic token ids of `text`: one for each word or punctuation mark."""
    return [zlib.crc32(token.encode()) % 50_000 for token in _TOKEN.findall(text)]


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
