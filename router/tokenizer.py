"""Counts tokens with the engine's own tokenizer and chat template."""

from typing import Any

import aiohttp
import orjson

from router.engines import Replica
from router.relay import engine_failed, upstream_error

Json = dict[str, Any]
_SECONDS = 10.0
# What of a chat request changes its prompt, beside the messages.
_CHAT_KEYS = ("tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


class Tokenizer:
    """Asks an engine's /tokenize, or /v1/messages/count_tokens for Anthropic's shape. Open while it is
    entered.
    """

    async def __aenter__(self) -> "Tokenizer":
        """Opens the connections."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes the connections."""
        await self._session.close()

    async def text(self, replica: Replica, text: str) -> int:
        """Tokens of a plain prompt."""
        return await self._count(replica, "/tokenize", {"prompt": text}, "count")

    async def chat(self, replica: Replica, body: Json, messages: list[Json]) -> int:
        """Tokens of a chat prompt, template and tools included. `body` is the chat request."""
        asked = {key: body[key] for key in _CHAT_KEYS if key in body}
        return await self._count(replica, "/tokenize", asked | {"messages": messages}, "count")

    async def anthropic(self, replica: Replica, body: Json, messages: list[Json]) -> int:
        """Tokens of the prompt of a request to the Messages API."""
        asked = {key: body[key] for key in ("system", "tools", "tool_choice") if key in body}
        return await self._count(
            replica, "/v1/messages/count_tokens", asked | {"messages": messages}, "input_tokens"
        )

    async def _count(self, replica: Replica, path: str, body: Json, key: str) -> int:
        """Raises ApiError: the engine refused the messages, or failed."""
        url = f"{replica.url}{path}"
        raw = orjson.dumps({"model": replica.alias, **body})
        try:
            async with self._session.post(
                url, data=raw, headers={"content-type": "application/json"}
            ) as response:
                answer = await response.read()
                if response.status != 200:
                    raise upstream_error(response.status, answer, replica.alias)
                return int(orjson.loads(answer)[key])
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError, KeyError):
            raise engine_failed(replica.alias) from None
