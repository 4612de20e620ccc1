"""Counts tokens with the engine's own tokenizer and chat template."""

from typing import Any

import aiohttp
import orjson

from router.errors import count_failed
from router.models import Replica
from router.paths import COUNT_TOKENS
from router.refusals import engine_refused

Json = dict[str, Any]
_TIMEOUT_SECONDS = 10.0
# The fields of a request that change its prompt, besides the messages.
_CHAT_KEYS = ("tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")
_ANTHROPIC_KEYS = ("system", "tools", "tool_choice", "chat_template_kwargs")


class Tokenizer:
    """Asks an engine's /tokenize, or /v1/messages/count_tokens for Anthropic's shape, while it is entered."""

    async def __aenter__(self) -> "Tokenizer":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def text(self, replica: Replica, text: str) -> int:
        """Tokens of a plain prompt."""
        return await self._count(replica, "/tokenize", {"prompt": text}, "count")

    async def chat(self, replica: Replica, body: Json, messages: list[Json]) -> int:
        """Tokens of a chat prompt, template and tools included. `body` is the chat request."""
        prompt = {key: body[key] for key in _CHAT_KEYS if key in body} | {"messages": messages}
        return await self._count(replica, "/tokenize", prompt, "count")

    async def anthropic(self, replica: Replica, body: Json, messages: list[Json]) -> int:
        """Tokens of the prompt of a request to the Messages API."""
        prompt = {key: body[key] for key in _ANTHROPIC_KEYS if key in body} | {"messages": messages}
        return await self._count(replica, COUNT_TOKENS, prompt, "input_tokens")

    async def _count(self, replica: Replica, path: str, body: Json, key: str) -> int:
        """The number under `key` in the engine's answer.

        Raises:
            ApiError: the engine refused the messages, or failed.
        """
        url = f"{replica.url}{path}"
        raw = orjson.dumps({"model": replica.served, **body})
        try:
            async with self._session.post(
                url, data=raw, headers={"content-type": "application/json"}
            ) as response:
                answer = await response.read()
                if response.status != 200:
                    raise engine_refused(response.status, answer, replica.alias, body)
                return int(orjson.loads(answer)[key])
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError, KeyError):
            raise count_failed(replica.alias) from None
