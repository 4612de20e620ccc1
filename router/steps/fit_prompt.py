"""Keeps the prompt within its share of the context, for each API (conversations: see context.py)."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from router.context import RESULTS, far_too_long, fit, most_bytes, most_tokens, too_long
from router.exchange import Exchange
from router.fim import Family
from router.models import Model
from router.paths import COMPLETIONS, COUNTING, EMBEDDINGS, INPUT_TOKENS, MESSAGES, POOLING, RESPONSES
from router.tokenizer import Tokenizer

Json = dict[str, Any]
Messages = list[Json]
# The fields of a request to the Responses API that change its prompt, besides its items and tools.
_PROMPT_KEYS = ("chat_template_kwargs",)
_LEAST_THINKING = 1024  # of Anthropic's API
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
        if exchange.path in POOLING:
            self._fit_texts(exchange)
        elif exchange.path in COUNTING:
            self._check_size(exchange, _most(exchange))
        else:
            await self._fit(exchange)
            fit_thinking(exchange)
        if exchange.truncated_tokens:
            exchange.headers["x-duoserve-truncated-messages"] = str(exchange.truncated_messages)
            exchange.headers["x-duoserve-truncated-tokens"] = str(exchange.truncated_tokens)

    async def input_tokens(self, exchange: Exchange) -> int:
        """Tokens of the prompt of a request to the Responses API."""
        return await self._counter(exchange)(_items(exchange.body["input"]))

    def _check_size(self, exchange: Exchange, most: int) -> None:
        """Refuse what is far beyond the context. The engine would count it for seconds, and could do nothing
        else meanwhile; ReadBody has only refused what is far beyond the longest context of any model.
        """
        model = self._models[exchange.alias]
        if not model.sees and most > most_bytes(model.window):
            param = next(name for name in ("messages", "input", "prompt") if name in exchange.body)
            raise far_too_long(model.window, f"{most / 1e6:.1f} MB", param)

    def _fit_texts(self, exchange: Exchange) -> None:
        """Have the engine cut texts that may be too long; it refuses the whole batch otherwise."""
        body, window = exchange.body, self._models[exchange.alias].window
        if exchange.path == EMBEDDINGS:
            texts = [body["input"]] if _is_one(body["input"]) else body["input"]
            longest = max(map(_most_tokens_of, texts))
        else:
            longest = _most_tokens_of(body["query"]) + max(map(_most_tokens_of, body["documents"]))
        if self._truncate and longest > window and "truncate_prompt_tokens" not in body:
            body["truncate_prompt_tokens"] = window
            exchange.note_set("truncate_prompt_tokens", window)

    async def _fit(self, exchange: Exchange) -> None:
        body, window = exchange.body, self._models[exchange.alias].window
        budget = math.floor(self._ratio * window)
        answer = max((body[key] for key in _ANSWER_KEYS if key in body), default=0)
        most = _most(exchange)
        if most <= budget and most + answer <= window:
            return
        self._check_size(exchange, most)
        if exchange.path == COMPLETIONS:
            tokens = await self._fit_text(exchange, budget)
        else:
            tokens = await self._fit_messages(exchange, budget)
        for key in _ANSWER_KEYS:
            if key in body:
                # 0 asks for the prompt's own log probabilities only.
                _lower(exchange, key, max(1, window - tokens))
                _lower(exchange, "min_tokens", body[key])

    async def _fit_messages(self, exchange: Exchange, budget: int) -> int:
        body = exchange.body
        key, count = "messages", self._counter(exchange)
        if exchange.path == RESPONSES:
            key = "input"
            if isinstance(body[key], str):
                tokens = await count(_items(body[key]))
                if tokens > budget:
                    raise too_long(tokens, budget, key)
                return tokens
        messages: Messages = body[key]
        total = await count(messages)
        if total <= budget:
            return total
        if exchange.wider or not self._truncate:
            raise too_long(total, budget, key)
        body[key], tokens = await fit(messages, total, budget, count, key)
        exchange.truncated_messages = len(messages) - len(body[key])
        exchange.truncated_tokens = total - tokens
        return tokens

    def _counter(self, exchange: Exchange) -> Callable[[Messages], Awaitable[int]]:
        body, replica = exchange.body, exchange.chosen
        if exchange.path == MESSAGES:
            return lambda messages: self._tokenizer.anthropic(replica, body, messages)
        if exchange.path in (RESPONSES, INPUT_TOKENS):
            prompt = {name: body[name] for name in _PROMPT_KEYS if name in body}
            if body.get("tools"):
                prompt["tools"] = [shown for tool in body["tools"] for shown in _chat_tools(tool)]
            first = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
            return lambda items: self._tokenizer.chat(
                replica, prompt, first + [_chat_message(i) for i in items]
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


def _is_one(text: Any) -> bool:
    """Whether an `input` for embeddings is one text, as such or as its tokens."""
    return isinstance(text, str) or isinstance(text[0], int)


def _most_tokens_of(text: str | list[int]) -> int:
    """A bound: no token has less than a byte. The two are those that mark the start and the end."""
    return len(text) if isinstance(text, list) else len(text.encode()) + 2


def _most(exchange: Exchange) -> int:
    body = exchange.body
    if exchange.path == COMPLETIONS:
        if isinstance(body["prompt"], list):
            return most_tokens(body["prompt"], 1, tools=False)
        return most_tokens([body["prompt"], body.get("suffix")], 1, tools=False)
    parts = [body.get(key) for key in ("messages", "input", "instructions", "system", "tools")]
    messages = body.get("messages", body.get("input"))
    return most_tokens(parts, len(messages) if isinstance(messages, list) else 1, bool(body.get("tools")))


def _items(text: str | list[Json]) -> list[Json]:
    """The `input` of the Responses API as its items."""
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


def _chat_message(item: Json) -> Json:
    """An item of the Responses API as the chat message into which the engine turns it."""
    kind = item.get("type", "message")
    if kind in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments", item.get("input", ""))
        function = {"name": item.get("name", ""), "arguments": arguments}
        if kind == "custom_tool_call":
            function["arguments"] = orjson.dumps({"input": arguments}).decode()
        call = {"id": item.get("call_id", ""), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind in RESULTS:
        return {
            "role": "tool",
            "tool_call_id": item.get("call_id", ""),
            "content": _text(item.get("output")),
        }
    content = item.get("content") or item.get("summary") or ""
    return {"role": item.get("role", "assistant"), "content": _text(content)}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _chat_tools(tool: Json) -> list[Json]:
    """A tool of the Responses API as the functions that the model is shown."""
    if tool.get("type") == "namespace":
        inner = tool["tools"] if isinstance(tool.get("tools"), list) else []
        named = [
            one | {"name": f"{tool.get('name')}__{one.get('name')}"} for one in inner if isinstance(one, dict)
        ]
        return [_function(one) for one in named if one.get("type") == "function"]
    if tool.get("type") == "custom":
        schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
        return [_function({"name": tool.get("name"), "parameters": schema, **_described(tool)})]
    return [tool if "function" in tool else _function(tool)]


def _described(tool: Json) -> Json:
    return {"description": tool["description"]} if tool.get("description") else {}


def _function(tool: Json) -> Json:
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _lower(exchange: Exchange, name: str, most: int) -> None:
    if exchange.body.get(name, 0) > most:
        exchange.body[name] = most
        exchange.note_set(name, most)


def fit_thinking(exchange: Exchange) -> None:
    """Keeps the budget for reasoning below the answer's own limit, as vLLM and Anthropic demand."""
    thinking, limit = exchange.body.get("thinking"), exchange.body.get("max_tokens", 0)
    if not isinstance(thinking, dict):
        return
    if not isinstance(budget := thinking.get("budget_tokens"), int | float) or budget < limit:
        return
    if limit > _LEAST_THINKING:
        exchange.body["thinking"] = thinking | {"budget_tokens": limit - 1}
        exchange.note_set("thinking.budget_tokens", limit - 1)
    else:
        del exchange.body["thinking"]
        exchange.ignore("thinking")
