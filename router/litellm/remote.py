"""Remote models: LiteLLM's own endpoints, with its translation to each provider's API, and its retries."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.types import Message, Scope, Send

from router.errors import ApiError, unavailable
from router.exchange import Exchange
from router.litellm.config import CLIENT_HEADER, KEY_HEADER
from router.litellm.proxy import Proxy
from router.models import Model
from router.paths import CHAT, RESPONSES

# The context of a model, in tokens, that neither its entry nor LiteLLM's table of models tells.
_UNKNOWN_WINDOW = 128_000
# What LiteLLM writes around a provider's words: its exceptions, and what its own router did.
_WRAPPING = re.compile(
    r"^(?:litellm\.)?(?:\w+Error|Timeout): |^\w*Exception(?: Error)?(?: \w+)? - "
    r"|\.?\s*Handle with `litellm\..*|\n+LiteLLM: model group .*|\.? ?Received Model Group=.*"
    r"|\n+Available Model Group Fallbacks=.*|\.? LiteLLM Retried: .*",
    re.DOTALL,
)
_TOO_LONG = re.compile(
    r"ContextWindowExceeded|context_length_exceeded|maximum context length|prompt is too long"
)
_BLOCKED = re.compile(r"ContentPolicyViolation|content_policy_violation|content management policy")
_RETRY_SECONDS = re.compile(r"Try again in (\d+) seconds")
_LATE = re.compile(r"Timeout on reading|timed out|^(?:litellm\.)?(?:Read)?Timeout", re.IGNORECASE)
# Where LiteLLM's streams are not quite OpenAI's: a chunk of usage has no choices, and events have names.
_USAGE = (re.compile(rb'"choices":\[\{"index":0,"delta":\{\}\}\](?=,"usage":)'), b'"choices":[]')
_STREAMS = {
    CHAT: _USAGE,
    RESPONSES: (
        re.compile(rb'(?:\A|(?<=\n\n))data: (?=\{"type": ?"([a-z_.]+)")'),
        rb"event: \1\ndata: ",
    ),
}
_DATA = re.compile(rb"^data: (\{.*\})$", re.MULTILINE)
_LONGEST_MESSAGE = 500
_log = logging.getLogger(__name__)


class Remote:
    """Sends requests to LiteLLM's own endpoints."""

    def __init__(self, proxy: Proxy, models: Mapping[str, Model]) -> None:
        self._proxy = proxy
        self._models = models

    async def __call__(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Send the exchange's body to LiteLLM, and its response to `send`. The names of the key and of the
        client go along for callbacks; no provider gets them.
        """
        names = {KEY_HEADER: exchange.key_name, CLIENT_HEADER: exchange.client}

        pattern, right = _STREAMS.get(exchange.path, (None, b""))

        async def corrected(message: Message) -> None:
            if pattern and message.get("body"):
                message = {**message, "body": pattern.sub(right, message["body"])}
            await send(message)

        sending = corrected if exchange.stream else send
        await self._proxy.ask(self._proxy.app, scope, exchange.path, exchange.body, sending, names)

    def failed(self, exchange: Exchange) -> ApiError:
        text = f"The provider of '{exchange.alias}' ({self._provider(exchange)}) failed. Try again soon."
        return unavailable("provider_failed", text, 2)

    def refused(self, exchange: Exchange, status: int, body: bytes) -> ApiError:
        return self._error(exchange, status, _message(body))

    def broke_off(self, exchange: Exchange, events: bytes) -> ApiError:
        found = _DATA.search(events)
        return self._error(exchange, 500, _message(found[1] if found else b""))

    def _provider(self, exchange: Exchange) -> str:
        return self._models[exchange.alias].provider

    def _error(self, exchange: Exchange, status: int, message: str) -> ApiError:
        """What LiteLLM or a provider says as the client is told it. The provider's refusal of this service's
        key or rate is not the client's fault.
        """
        alias, provider = exchange.alias, self._provider(exchange)
        words = plain(message)
        if _TOO_LONG.search(message):
            return ApiError(400, words, reason="context_length", code="context_length_exceeded")
        if _BLOCKED.search(message):
            return ApiError(400, words, reason="refused_by_provider", code="content_policy_violation")
        if "deployments available" in message or "cooldown" in message:
            text = f"The provider of '{alias}' ({provider}) failed, and is not asked again for some seconds."
            found = _RETRY_SECONDS.search(message)
            return unavailable("provider_cooldown", text, int(found[1]) if found else 5, "provider_failed")
        if status in (400, 413, 422):
            return ApiError(400, words, reason="refused_by_provider")
        _log.warning("the provider of %s answered %d", alias, status)
        if status in (401, 403):
            text = (
                f"The provider of '{alias}' ({provider}) refused this service's credentials. Whoever runs "
                "the service must check api_key of its entry in config/litellm.yaml."
            )
            return ApiError(
                502, text, reason="provider_credentials", kind="server_error", code="provider_credentials"
            )
        if status == 404:
            text = f"The provider of '{alias}' ({provider}) has no such model or API: {words}"
            return ApiError(
                502, text, reason="provider_failed", kind="server_error", code="provider_not_found"
            )
        if status == 429:
            text = f"The provider of '{alias}' ({provider}) limits this service's requests. Try again soon."
            return unavailable("provider_limit", text, 5)
        if status in (408, 504) or _LATE.search(words):
            text = f"The provider of '{alias}' ({provider}) did not answer in time."
            return ApiError(504, text, reason="provider_failed", kind="server_error", code="provider_timeout")
        return self.failed(exchange)


def plain(message: str) -> str:
    """The provider's words in a message of LiteLLM's."""
    while (shorter := _WRAPPING.sub("", message).strip()) != message:
        message = shorter
    try:
        error = orjson.loads(message.removeprefix("b'").removesuffix("'"))
        message = str(error["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    return message[:_LONGEST_MESSAGE] or "The provider gave no reason."


def _message(body: bytes) -> str:
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if isinstance(content, dict):
        content = content.get("response", content)  # of the event response.failed
    error = content.get("error", content) if isinstance(content, dict) else content
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def with_windows(models: Mapping[str, Model]) -> dict[str, Model]:
    """`models`, with the contexts of remote ones that LiteLLM's own table tells, or 128,000 tokens."""
    import litellm

    def window(model: Model) -> int:
        try:
            known = litellm.get_model_info(model.name)
        except Exception:  # it raises Exception itself
            return _UNKNOWN_WINDOW
        return known.get("max_input_tokens") or known.get("max_tokens") or _UNKNOWN_WINDOW

    return {
        alias: model if model.window else replace(model, window=window(model))
        for alias, model in models.items()
    }


def supported_parameters(models: Mapping[str, Model]) -> dict[str, frozenset[str]]:
    """By remote model, the parameters of OpenAI's chat API that LiteLLM translates for its provider."""
    import litellm

    return {
        alias: frozenset(
            litellm.get_supported_openai_params(
                model.name.partition("/")[2], custom_llm_provider=model.provider
            )
            or ()
        )
        for alias, model in models.items()
        if model.remote
    }
