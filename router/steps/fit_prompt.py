"""Keeps the prompt within its share of the context, for each API (conversations: see context.py)."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from router.context import fit, most_tokens, too_long
from router.exchange import Exchange
from router.fim import Family
from router.models import Model
from router.paths import COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES
from router.tokenizer import Tokenizer

Json = dict[str, Any]
Messages = list[Json]
_ANSWER_KEYS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# The share of a fill-in-the-middle prompt that the suffix gets when both sides are too long.
_SUFFIX_SHARE = 0.25
# The cut of a prefix moves in steps of this many characters, so that the prompt's start stays the same while
# the user types.
_PREFIX_STEP = 1024


class FitPrompt:
    """Shortens a prompt that is longer than `ratio` of the context, or refuses it (400) unless `truncate`;
    reduces max_tokens to what is left. Sets the exchange's truncation and its headers.
    """

    def __init__(
        self, models: Mapping[str, Model], tokenizer: Tokenizer, ratio: float, truncate: bool
    ) -> None:
        self._models = models
        self._tokenizer = tokenizer
        self._ratio = ratio
        self._truncate = truncate

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path != COUNT_TOKENS:
            await self._fit(exchange)
        if exchange.truncated_tokens:
            exchange.headers["x-duoserve-truncated-messages"] = str(exchange.truncated_messages)
            exchange.headers["x-duoserve-truncated-tokens"] = str(exchange.truncated_tokens)

    async def _fit(self, exchange: Exchange) -> None:
        body, window = exchange.body, self._models[exchange.alias].window
        budget = math.floor(self._ratio * window)
        answer = max((body[key] for key in _ANSWER_KEYS if key in body), default=0)
        most = _most(exchange)
        if most <= budget and most + answer <= window:
            return
        if exchange.path == COMPLETIONS:
            tokens = await self._fit_text(exchange, budget)
        else:
            tokens = await self._fit_messages(exchange, budget)
        for key in _ANSWER_KEYS:
            if key in body:
                body[key] = max(1, min(body[key], window - tokens))

    async def _fit_messages(self, exchange: Exchange, budget: int) -> int:
        body = exchange.body
        key, count = "messages", self._counter(exchange)
        if exchange.path == RESPONSES:
            key = "input"
            if isinstance(body[key], str):
                tokens = await count([{"role": "user", "content": body[key]}])
                if tokens > budget:
                    raise too_long(tokens, budget, key)
                return tokens
        messages: Messages = body[key]
        total = await count(messages)
        if total <= budget:
            return total
        if not self._truncate:
            raise too_long(total, budget, key)
        body[key], tokens = await fit(messages, total, budget, count)
        exchange.truncated_messages = len(messages) - len(body[key])
        exchange.truncated_tokens = total - tokens
        return tokens

    def _counter(self, exchange: Exchange) -> Callable[[Messages], Awaitable[int]]:
        body, replica = exchange.body, exchange.chosen
        if exchange.path == MESSAGES:
            return lambda messages: self._tokenizer.anthropic(replica, body, messages)
        if exchange.path == RESPONSES:
            tools = {"tools": [_chat_tool(tool) for tool in body["tools"]]} if body.get("tools") else {}
            first = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
            return lambda items: self._tokenizer.chat(
                replica, tools, first + [_chat_message(i) for i in items]
            )
        return lambda messages: self._tokenizer.chat(replica, body, messages)

    async def _fit_text(self, exchange: Exchange, budget: int) -> int:
        body, replica = exchange.body, exchange.chosen
        if exchange.fim is not None:
            return await self._fit_fim(exchange, exchange.fim, budget)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if prompts and isinstance(prompts[0], int):
            prompts = [prompts]
        longest = 0
        for prompt in prompts:
            counted = await self._tokenizer.text(replica, prompt) if isinstance(prompt, str) else len(prompt)
            longest = max(longest, counted)
        if longest > budget:
            raise too_long(longest, budget, "prompt")
        return longest

    async def _fit_fim(self, exchange: Exchange, family: Family, budget: int) -> int:
        body, replica = exchange.body, exchange.chosen
        prefix, suffix = body["prompt"], body["suffix"]
        total = tokens = await self._tokenizer.text(replica, family.render(prefix, suffix))
        if total > budget and not self._truncate:
            raise too_long(total, budget, "prompt")
        # Each round aims a little lower, since half of a text does not have exactly half of its tokens.
        aim = budget
        while tokens > budget:
            aim = aim * 95 // 100
            before = await self._tokenizer.text(replica, prefix)
            after = tokens - before
            for_suffix = max(min(after, int(aim * _SUFFIX_SHARE)), aim - before)
            prefix = last_part(prefix, (aim - min(for_suffix, after)) / max(before, 1))
            suffix = first_part(suffix, for_suffix / max(after, 1))
            tokens = await self._tokenizer.text(replica, family.render(prefix, suffix))
            if aim < 16:
                raise too_long(tokens, budget, "prompt")
        body["prompt"], body["suffix"] = prefix, suffix
        exchange.truncated_tokens = total - tokens
        return tokens


def last_part(text: str, share: float) -> str:
    """The end of `text`, at most `share` of it, from the start of a line if there is one."""
    if share >= 1:
        return text
    start = math.ceil(len(text) * (1 - max(share, 0)) / _PREFIX_STEP) * _PREFIX_STEP
    if start >= len(text):
        start = math.ceil(len(text) * (1 - max(share, 0)))
    line = text.find("\n", start - 1) + 1
    return text[line if 0 < line < len(text) else start :]


def first_part(text: str, share: float) -> str:
    """The start of `text`, at most `share` of it, up to the end of a line if there is one."""
    if share >= 1:
        return text
    end = int(len(text) * max(share, 0))
    line = text.rfind("\n", 0, end) + 1
    return text[: line or end]


def _most(exchange: Exchange) -> int:
    body = exchange.body
    if exchange.path == COMPLETIONS:
        if isinstance(body["prompt"], list):
            return most_tokens(body["prompt"], 1, tools=False)
        return most_tokens([body["prompt"], body.get("suffix")], 1, tools=False)
    parts = [body.get(key) for key in ("messages", "input", "instructions", "system", "tools")]
    messages = body.get("messages", body.get("input"))
    return most_tokens(parts, len(messages) if isinstance(messages, list) else 1, bool(body.get("tools")))


def _chat_message(item: Json) -> Json:
    """An item of the Responses API as the chat message into which the engine turns it."""
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name", ""), "arguments": item.get("arguments", "")}
        call = {"id": item.get("call_id", ""), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "function_call_output":
        return {
            "role": "tool",
            "tool_call_id": item.get("call_id", ""),
            "content": str(item.get("output", "")),
        }
    content = item.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return {"role": item.get("role", "assistant"), "content": content}


def _chat_tool(tool: Json) -> Json:
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
