"""A typed client of the router: the OpenAI SDK where it has a method, plain HTTP for the rest."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from ui.settings import AppSettings
from ui.signin import KEY_ENDED

# A request may wait in the queue for minutes, so only connecting has a short limit.
TIMEOUT = httpx.Timeout(connect=5.0, read=600.0, write=30.0, pool=5.0)
_PROBE = httpx.Timeout(3.0)
_REPORT = httpx.Timeout(5.0, read=120.0)  # a long log takes seconds to read
_RETRY_AFTER_LIMIT = 600.0
# Names the personal key of whoever asks: the request counts for it, and is refused if the key is not valid.
_FOR_KEY = "x-duoserve-for-key"


class ModelStatus(BaseModel):
    """One model in the answer of /ready."""

    state: Literal["ready", "loading", "down"]
    since: datetime
    reason: str = ""


class Readiness(BaseModel):
    """The answer of /ready."""

    status: str
    models: dict[str, ModelStatus]


class UsageSums(BaseModel):
    """Sums of the router's report of use; times in milliseconds."""

    name: str | None = None
    requests: int
    prompt_tokens: int
    cached_share: float | None
    completion_tokens: int
    mean_wait_ms: float | None
    longest_wait_ms: float
    refused: int
    failed: int
    left: int
    reasons: dict[str, int]
    tools: dict[str, int]


class Usage(BaseModel):
    """The answer of /usage."""

    log_begins: datetime | None
    total: UsageSums
    client: list[UsageSums]
    model: list[UsageSums]
    day: list[UsageSums]
    tool: list[UsageSums]
    hours: list[list[int]]  # requests by weekday, from Monday, and hour


@dataclass(frozen=True)
class ListedModel:
    """An entry of /v1/models."""

    name: str
    root: str  # the alias or model that the name stands for
    window: int  # context window in tokens; 0: unknown
    description: str = ""  # what it is good for
    mode: str = "chat"  # what it is for: chat, completion, embedding or rerank
    vector_size: int = 0  # numbers in an embedding; 0: unknown
    real: str = ""  # the model behind it, as its makers call it
    sees: bool = False  # takes pictures
    provider: str = ""  # the other service that answers, so that questions leave this one; empty: none

    @property
    def chats(self) -> bool:
        """Whether it takes part in a conversation, rather than completing code or making embeddings."""
        return self.mode == "chat"


@dataclass(frozen=True)
class ChatRequest:
    """A request for a chat completion."""

    model: str
    messages: list[ChatCompletionMessageParam]
    temperature: float | None  # None: as the model is served
    top_p: float | None
    max_tokens: int
    user: str  # an opaque name of the asker, so that the router can be fair
    continue_last: bool = False  # continue the assistant message at the end
    think: bool = True  # False: a model that reasons answers at once
    last: bool = False  # everyone else's requests go first
    key: str = ""  # the SHA-256 of the asker's personal key; empty: they have none


@dataclass(frozen=True)
class Started:
    """The router admitted the request; its headers tell what was left out of the prompt."""

    left_out_messages: int
    left_out_tokens: int


@dataclass(frozen=True)
class Piece:
    """A piece of the answer."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class Ended:
    """The end of the answer, with the engine's token counts."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


Event = Started | Piece | Ended


class RouterFailure(Exception):
    """A request failed; the message is a sentence for people.

    `kind` is one word: personal (the asker's key is not valid), key (the app's), model, size, request, busy,
    loading, down, lost, unreachable, silent or service.
    `retry_after` is the number of seconds after which a retry makes sense.
    """

    def __init__(self, kind: str, sentence: str, retry_after: float = 0.0) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.retry_after = retry_after


class RouterClient:
    """Talks to the router at ROUTER_URL with the master key. Use it from one event loop only."""

    def __init__(self, settings: AppSettings) -> None:
        self._url = settings.router_url
        key = settings.litellm_master_key.get_secret_value()
        self._api = openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT
        )
        self._api.chat.completions  # noqa: B018 - imports it now, not while somebody waits for an answer
        self._http = httpx.AsyncClient(base_url=self._url, headers={"Authorization": f"Bearer {key}"})

    async def ready(self) -> Readiness:
        """The state of every model. Raises RouterFailure."""
        response = await self._get("/ready")
        return Readiness.model_validate_json(response.content)

    async def models(self) -> list[ListedModel]:
        """Every model name that the router accepts. Raises RouterFailure."""
        response = await self._get("/v1/models")
        listed: list[dict[str, Any]] = response.json()["data"]
        return [
            ListedModel(
                each["id"],
                str(each.get("root", each["id"])),
                int(each.get("max_model_len") or 0),
                description=str(each.get("description") or ""),
                mode=str(each.get("mode") or "chat"),
                vector_size=int(each.get("output_vector_size") or 0),
                real=str(each.get("display_name") or ""),
                sees=bool(each.get("supports_vision")),
                provider=str(each.get("owned_by") or "another service") if each.get("remote") else "",
            )
            for each in listed
        ]

    async def metrics(self) -> str:
        """The router's metrics, in Prometheus' text format. Raises RouterFailure."""
        return (await self._get("/metrics")).text

    async def usage(self, since: str, utc_offset: int, key: str) -> Usage:
        """What was used since then (`7d`, `24h`), by all or by the personal key with this SHA-256. The time
        zone of days and hours is `utc_offset` minutes ahead of UTC. Raises RouterFailure.
        """
        response = await self._get("/usage", {"since": since, "utc_offset": utc_offset}, _REPORT, key)
        return Usage.model_validate_json(response.content)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """The events of one answer. Closing the iterator, or cancelling its task, frees the engine.

        Raises:
            RouterFailure: the router refused or was not reached, or the answer broke off.
        """
        # Given as `messages`, the SDK would look at every field of each: 0.2 s of CPU in a long conversation.
        extra: dict[str, Any] = {"messages": request.messages}
        if request.continue_last:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        if not request.think:
            extra["chat_template_kwargs"] = {"enable_thinking": False}
        try:
            raw = await self._api.chat.completions.with_raw_response.create(
                model=request.model,
                messages=[],
                temperature=openai.omit if request.temperature is None else request.temperature,
                top_p=openai.omit if request.top_p is None else request.top_p,
                max_tokens=request.max_tokens,
                user=request.user,
                service_tier="flex" if request.last else openai.omit,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=_for_key(request.key),
                extra_body=extra,
            )
            yield Started(
                _number(raw.headers, "x-duoserve-truncated-messages"),
                _number(raw.headers, "x-duoserve-truncated-tokens"),
            )
            finish, usage = "", None
            stream = raw.parse()
            try:
                async for chunk in stream:
                    usage = chunk.usage or usage
                    for choice in chunk.choices[:1]:
                        finish = choice.finish_reason or finish
                        delta = choice.delta
                        thought = getattr(delta, "reasoning", None) or getattr(
                            delta, "reasoning_content", None
                        )
                        if thought or delta.content:
                            yield Piece(delta.content or "", thought or "")
            finally:
                await stream.close()
        except (openai.OpenAIError, httpx.HTTPError) as error:
            raise self._failure(error, request.model) from error
        if not finish:
            raise RouterFailure("lost", _LOST)
        yield Ended(
            finish,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._api.close()
        await self._http.aclose()

    async def _get(
        self,
        path: str,
        given: dict[str, Any] | None = None,
        limits: httpx.Timeout = _PROBE,
        key: str = "",
    ) -> httpx.Response:
        try:
            response = await self._http.get(path, params=given, timeout=limits, headers=_for_key(key))
            # The status of /ready is 503 while no model is ready; its body is an answer all the same.
            if path != "/ready" or response.status_code != 503:
                response.raise_for_status()
        except httpx.HTTPError as error:
            raise self._failure(error, "") from error
        return response

    def _failure(self, error: Exception, model: str) -> RouterFailure:
        if isinstance(error, openai.APIStatusError):
            return _refusal(error, model)
        if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
            if isinstance(error.__cause__, httpx.ConnectTimeout) or isinstance(error, httpx.ConnectTimeout):
                return RouterFailure("unreachable", self._unreachable())
            return RouterFailure(
                "silent", "The router stopped responding. The network may be slow; try again."
            )
        if isinstance(error, openai.APIConnectionError | httpx.ConnectError):
            return RouterFailure("unreachable", self._unreachable())
        if isinstance(error, openai.APIError | httpx.TransportError):
            return RouterFailure("lost", _LOST)
        if isinstance(error, httpx.HTTPStatusError):
            if error.response.status_code == 401 and _FOR_KEY in error.response.text:
                return RouterFailure("personal", KEY_ENDED)
            return RouterFailure("service", "The router could not answer. Try again soon.")
        return RouterFailure("service", "The router sent a response that the chat app does not understand.")

    def _unreachable(self) -> str:
        return (
            f"The router at {self._url} is not responding. "
            "Run ./run status on the server to see what is running."
        )


_LOST = "The connection was lost. The partial answer is saved."


def _refusal(error: openai.APIStatusError, model: str) -> RouterFailure:
    """What people are told for each status; the router's own message only where it is about their input."""
    status, after = error.status_code, _retry_after(error.response)
    body = error.body if isinstance(error.body, dict) else {}
    message = str(body.get("message") or "").strip()
    code = str(body.get("code") or "")
    if status == 401 and body.get("param") == _FOR_KEY:
        return RouterFailure("personal", KEY_ENDED)
    if status in (401, 403):
        return RouterFailure(
            "key", "The router does not accept the chat app's key. Restart both with ./run down and ./run up."
        )
    if status == 404:
        return RouterFailure("model", f"The service has no model named “{model}”. Choose another one above.")
    if status == 413:
        return RouterFailure(
            "size", "The question is too large for the service. Remove an attachment or shorten the text."
        )
    if code == "rate_limit_exceeded":  # of their key, or of the model
        return RouterFailure("busy", message.partition(" Try again")[0], after)
    if status == 429:
        return RouterFailure("busy", "The service is busy right now.", after)
    if status == 503 and code == "model_loading":
        return RouterFailure("loading", f"The model “{model}” is still loading.", after)
    if status in (502, 503, 504):
        return RouterFailure("down", f"The model “{model}” is not available at the moment.", after)
    if code == "context_length_exceeded":
        return RouterFailure(
            "size", f"Too long: {message} Shorten the question, or attach fewer or smaller files."
        )
    if 400 <= status < 500:
        return RouterFailure("request", f"The service refused the request: {message or f'status {status}'}")
    return RouterFailure(
        "service", "The service failed to answer. See its log for the reason (./run logs router).", after
    )


def _for_key(key: str) -> dict[str, str]:
    return {_FOR_KEY: key} if key else {}


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers["retry-after"]), 0.0), _RETRY_AFTER_LIMIT)
    except (KeyError, ValueError):
        return 0.0


def _number(headers: Any, name: str) -> int:
    value = str(headers.get(name, ""))
    return int(value) if value.isdigit() else 0
