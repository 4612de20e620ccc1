"""Sessions of coding agents as counts and structure: reading them, and the requests they stand for.

A file has one session a line, as JSON:

    {"session": "claude-code-task", "client": "Claude Code 2.1.332", "api": "messages", "tools": [310],
     "requests": [{"think": 0.4, "answer": 60, "keep": 0, "add": [{"role": "system", "tokens": 1800}]}]}

api       messages, chat or responses
tools     the tokens of each tool's definition
requests  in order. think: seconds since the request before it. answer: tokens of the answer. keep: how many
          blocks of the request before it begin this one; add: the blocks that follow
blocks    role: system, user, assistant, call (of a tool), result, or inline (a system turn in the middle).
          tokens: its length, at four bytes a token. joins: it is a further part of the turn before it. form:
          text that clients change from request to request (`FORMS`). id: blocks with the same id have the
          same text, in every session of the file; without one a block's text is its session's alone

No text is in it: `Session.bodies` generates text of that length, the same for the same seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

Json = dict[str, Any]
BYTES_PER_TOKEN = 4
FILE = Path(__file__).with_name("sessions.jsonl")
# Of a context, at most, so that the router leaves nothing out (CONTEXT_RATIO) and templates have room.
_FILLED = 0.6
# At most, with what holds the texts. The router would shorten more than 0.75 of it.
_SENT = 0.74
# What a block with such a `form` says; {n} is different in every request.
FORMS = {
    "billing-header": "x-anthropic-billing-header: cc_version=2.1.332.{n}; cc_entrypoint=cli; cch={n};",
    "date": "Today's date: Sat Nov 28 2026 (request {n})",
    "date-reminder": "<system-reminder>\nThe current date is: Saturday, November 28, 2026. Note: {n}.\n"
    "</system-reminder>\n",
}
_WORDS = [
    "read",
    "write",
    "parse",
    "value",
    "result",
    "item",
    "list",
    "return",
    "error",
    "path",
    "name",
    "count",
    "index",
    "data",
    "line",
    "token",
    "open",
    "close",
    "first",
    "last",
    "next",
    "key",
    "map",
    "set",
    "test",
    "case",
    "import",
    "class",
    "self",
    "buffer",
    "cache",
    "prompt",
    "engine",
    "router",
    "session",
    "request",
    "answer",
]


@dataclass(frozen=True)
class Request:
    """One request of a session: its pause before it, the length of its answer, and its body."""

    think: float
    answer: int
    body: Json


@dataclass(frozen=True)
class Session:
    """One recorded session; the top of this file explains the fields."""

    name: str
    client: str
    api: str
    tools: tuple[int, ...]
    requests: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, line: Json) -> Session:
        """The session of one line of a file."""
        return cls(
            line["session"],
            line.get("client", ""),
            line["api"],
            tuple(line.get("tools", ())),
            tuple(line["requests"]),
        )

    @property
    def path(self) -> str:
        """Where its requests go."""
        return {"messages": "/v1/messages", "responses": "/v1/responses"}.get(
            self.api, "/v1/chat/completions"
        )

    def longest(self) -> int:
        """Tokens of its longest prompt, with the answer."""
        most, blocks = 0, list[Json]()
        for request in self.requests:
            blocks = blocks[: request["keep"]] + request["add"]
            most = max(most, sum(block["tokens"] for block in blocks) + request["answer"])
        return most + sum(self.tools)

    def scale(self, window: int) -> float:
        """What its texts are multiplied by for a context of `window` tokens: 1, or less where too long."""
        if not window:
            return 1.0
        scale = min(1.0, window * _FILLED / self.longest())
        # What holds the texts does not shrink with them.
        while scale < 1 and (sent := self._longest_sent(scale)) > (most := window * _SENT):
            scale *= 0.98 * most / sent
        return scale

    def _longest_sent(self, scale: float) -> float:
        """As `longest`, by the bytes of what is sent."""
        return max(len(json.dumps(request.body)) for request in self.bodies(scale=scale)) / 4

    def bodies(self, seed: int | str = 1, scale: float = 1.0, model: str = "coder") -> Iterator[Request]:
        """Its requests, with text made for this seed. `scale` multiplies the lengths of all texts."""
        tools = [_tool(self.api, i, int(tokens * scale)) for i, tokens in enumerate(self.tools)]
        blocks: list[tuple[Json, str]] = []
        for number, request in enumerate(self.requests):
            new = [
                (block, _text(block, f"{seed}/{self.name}/{number}/{i}", number, scale))
                for i, block in enumerate(request["add"])
            ]
            blocks = blocks[: request["keep"]] + new
            body = _body(self.api, blocks) | ({"tools": tools} if tools else {})
            limit = {"responses": "max_output_tokens"}.get(self.api, "max_tokens")
            body |= {"model": model, "stream": True, limit: max(1, int(request["answer"] * scale))}
            yield Request(request["think"], request["answer"], body)


def read_sessions(path: Path) -> list[Session]:
    """The sessions of a file in this format, or in Mooncake's.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a session; the text names the line.
    """
    found, mooncake = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if "input_length" in entry:
                mooncake.append(entry)
            else:
                found.append(Session.of(entry))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {type(error).__name__} {error}") from None
    try:
        return found + [Session.of(session) for session in from_mooncake(mooncake)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}, in Mooncake's schema: {type(error).__name__} {error}") from None


def from_mooncake(entries: Iterable[Json], block_tokens: int = 512) -> list[Json]:
    """Sessions from a trace in Mooncake's schema, which AIPerf and inference-perf read.

    An entry is a request: `input_length` and `output_length` in tokens, `hash_ids` of its blocks (equal
    ids are equal text), `timestamp` in milliseconds or `delay` since the answer before it, and `session_id`.
    Without `session_id` every entry is a session.
    """
    sessions: dict[str, Json] = {}
    before: dict[str, tuple[list[int], float]] = {}
    for number, entry in enumerate(entries):
        name = str(entry.get("session_id", f"request-{number}"))
        session = sessions.setdefault(name, {"session": name, "api": "chat", "tools": [], "requests": []})
        ids, at = before.get(name, ([], float(entry.get("timestamp", 0))))
        hashes: list[int] = entry.get("hash_ids") or []
        keep = next((i for i, (a, b) in enumerate(zip(ids, hashes, strict=False)) if a != b), None)
        keep = min(len(ids), len(hashes)) if keep is None else keep
        tokens = [block_tokens] * len(hashes)
        if hashes:
            tokens[-1] = max(1, entry["input_length"] - block_tokens * (len(hashes) - 1))
        add = [
            {"role": "user", "tokens": tokens[i], "id": f"block-{hashes[i]}", "joins": i > 0}
            for i in range(keep, len(hashes))
        ] or [{"role": "user", "tokens": entry["input_length"]}]
        now = float(entry.get("timestamp", at))
        think = float(entry["delay"]) / 1000 if "delay" in entry else max(0.0, now - at) / 1000
        session["requests"].append(
            {"think": think, "answer": entry["output_length"], "keep": keep, "add": add}
        )
        before[name] = (hashes, now)
    return list(sessions.values())


def from_bodies(name: str, client: str, api: str, recorded: Sequence[tuple[float, Json]]) -> Json:
    """A session from the bodies that a client sent, each with its time: counts and structure only.

    A text that two requests have at the same place is one block. What `FORMS` describes is kept by name.
    """
    session: Json = {"session": name, "client": client, "api": api, "tools": [], "requests": []}
    before: list[Json] = []
    added: dict[str, list[Json]] = {}  # by text
    at = recorded[0][0] if recorded else 0.0
    for sent, body in recorded:
        session["tools"] = [_tokens(json.dumps(tool)) for tool in body.get("tools") or []]
        blocks = list(_blocks(body))
        keep = next((i for i, (a, b) in enumerate(zip(before, blocks, strict=False)) if a != b), None)
        keep = min(len(before), len(blocks)) if keep is None else keep
        add = [{key: value for key, value in block.items() if key != "text"} for block in blocks[keep:]]
        for block, short in zip(blocks[keep:], add, strict=True):
            added.setdefault(block["text"], []).append(short)
        answer = next((block["tokens"] for block in add if block["role"] in ("assistant", "call")), 32)
        if session["requests"]:
            session["requests"][-1]["answer"] = answer
        session["requests"].append({"think": round(sent - at, 2), "answer": answer, "keep": keep, "add": add})
        before, at = blocks, sent
    for number, same in enumerate(added.values()):
        for short in same if len(same) > 1 else []:
            short["id"] = f"{name}/{number}"
    return session


def _tokens(text: str) -> int:
    return max(1, len(text.encode()) // BYTES_PER_TOKEN)


def _blocks(body: Json) -> Iterator[Json]:
    """The blocks of a request's prompt, with their text."""
    for key in ("system", "instructions"):
        if body.get(key):
            yield from _parts("system", body[key])
    front = True
    for turn in body.get("messages") or body.get("input") or []:
        role = turn.get("role", "")
        front = front and role in ("system", "developer")
        if turn.get("type") in ("function_call", "custom_tool_call"):
            yield _block("call", str(turn.get("arguments", turn.get("input", ""))))
        elif role == "tool" or "output" in turn:
            yield from _parts("result", turn.get("output", turn.get("content")))
        elif role in ("system", "developer"):
            yield from _parts("system" if front else "inline", turn.get("content"))
        else:
            yield from _parts(role or "assistant", turn.get("content"))
            for call in turn.get("tool_calls") or []:
                yield _block("call", call["function"]["arguments"])


def _parts(role: str, content: Any) -> Iterator[Json]:
    parts = content if isinstance(content, list) else [content] if content else []
    joins = False
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "tool_use":
            yield _block("call", json.dumps(part.get("input")))
        elif isinstance(part, dict) and part.get("type") == "tool_result":
            yield from _parts("result", part.get("content"))
        else:
            text = str(part.get("text", "") if isinstance(part, dict) else part)
            yield _block(role, text) | ({"joins": True} if joins else {})
            joins = True


def _block(role: str, text: str) -> Json:
    form = next(
        (name for name, form in FORMS.items() if text.startswith(form.partition("{n}")[0][:40])), None
    )
    return {"role": role, "tokens": _tokens(text), "text": text} | ({"form": form} if form else {})


def _text(block: Json, seed: str, number: int, scale: float) -> str:
    if "form" in block:
        return FORMS[block["form"]].format(n=f"{number:05x}")
    rng = Random(block.get("id") or seed)  # noqa: S311 - repeatable, not secret
    words: list[str] = []
    left = int(block["tokens"] * scale) * BYTES_PER_TOKEN
    while left > 0:
        words.append(rng.choice(_WORDS))
        left -= len(words[-1]) + 1
    return " ".join(words) or "ok"


def _tool(api: str, number: int, tokens: int) -> Json:
    text = _text({"tokens": tokens}, f"tool/{number}", 0, 1.0)
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    named = {"name": f"tool_{number}", "description": text}
    if api == "messages":
        return named | {"input_schema": schema}
    if api == "responses":
        return {"type": "function", **named, "parameters": schema}
    return {"type": "function", "function": named | {"parameters": schema}}


def _body(api: str, blocks: Sequence[tuple[Json, str]]) -> Json:
    """The prompt in the words of `api`."""
    turns: list[Json] = []
    system: list[str] = []
    calls = 0
    for block, text in blocks:
        role = block["role"]
        if role == "call":
            calls += 1
        if role == "system" and api == "messages":
            system.append(text)
        elif block.get("joins") and turns and isinstance(turns[-1].get("content"), list):
            turns[-1]["content"].append(
                {"type": "input_text" if api == "responses" else "text", "text": text}
            )
        else:
            turns.append(_turn(api, role, text, f"call-{calls}"))
    key = "input" if api == "responses" else "messages"
    return {key: turns} | ({"system": [{"type": "text", "text": text} for text in system]} if system else {})


def _turn(api: str, role: str, text: str, call: str) -> Json:
    kind = "input_text" if api == "responses" else "text"
    if role == "call":
        arguments = {"path": text}
        if api == "messages":
            use = {"type": "tool_use", "id": call, "name": "tool_0", "input": arguments}
            return {"role": "assistant", "content": [use]}
        if api == "responses":
            function = {"name": "tool_0", "arguments": json.dumps(arguments)}
            return {"type": "function_call", "call_id": call, **function}
        function = {"name": "tool_0", "arguments": json.dumps(arguments)}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call, "type": "function", "function": function}],
        }
    if role == "result":
        if api == "messages":
            result = {"type": "tool_result", "tool_use_id": call, "content": text}
            return {"role": "user", "content": [result]}
        if api == "responses":
            return {"type": "function_call_output", "call_id": call, "output": text}
        return {"role": "tool", "tool_call_id": call, "content": text}
    if role in ("system", "inline"):
        role = "developer" if api == "responses" else "system"
    if role == "assistant":
        kind = "output_text" if api == "responses" else "text"
    if api == "chat" and role != "user":
        return {"role": role, "content": text}
    turn = {"role": role, "content": [{"type": kind, "text": text}]}
    return {"type": "message", **turn} if api == "responses" else turn
