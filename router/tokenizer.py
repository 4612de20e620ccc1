"""Counts tokens with the engine's own tokenizer and chat template."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from router.engines import Engine
from router.relay import engine_failed, upstream_error

Json = dict[str, Any]
_SECONDS = 10.0
# What of a chat request changes its prompt, beside the messages.
_CHAT_KEYS = ("tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


class Tokenizer:
    """Asks the engines' /tokenize, or /v1/messages/count_tokens for Anthropic's shape. Open while it is
    entered.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    async def __aenter__(self) -> "Tokenizer":
        """Opens the connections."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes the connections."""
        await self._session.close()

    async def text(self, alias: str, text: str) -> int:
        """Tokens of a plain prompt."""
        return await self._count(alias, "/tokenize", {"prompt": text}, "count")

    async def chat(self, alias: str, body: Json, messages: list[Json]) -> int:
        """Tokens of a chat prompt, template and tools included. `body` is the chat request."""
        asked = {key: body[key] for key in _CHAT_KEYS if key in body}
        return await self._count(alias, "/tokenize", asked | {"messages": messages}, "count")

    async def anthropic(self, alias: str, body: Json, messages: list[Json]) -> int:
        """Tokens of the prompt of a request to the Messages API."""
        asked = {key: body[key] for key in ("system", "tools", "tool_choice") if key in body}
        return await self._count(
            alias, "/v1/messages/count_tokens", asked | {"messages": messages}, "input_tokens"
        )

    async def _count(self, alias: str, path: str, body: Json, key: str) -> int:
        """Raises ApiError: the engine refused the messages, or failed."""
        url = f"{self._engines[alias].url}{path}"
        raw = orjson.dumps({"model": alias, **body})
        try:
            async with self._session.post(
                url, data=raw, headers={"content-type": "application/json"}
            ) as response:
                answer = await response.read()
                if response.status != 200:
                    raise upstream_error(response.status, answer, alias)
                return int(orjson.loads(answer)[key])
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError, KeyError):
            raise engine_failed(alias) from None
