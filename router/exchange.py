"""What the layers and steps know about one request, passed on in `scope["duoserve"]`."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from router.fim import Family
from router.models import Replica
from router.paths import canonical
from router.recent_prompts import Loss

_LONGEST_NAME = 100
_PRODUCT = re.compile(r"[A-Za-z][\w.-]{0,31}", re.ASCII)
_LONGEST_HEADER = 2000  # proxies refuse responses whose headers are longer than a few thousand bytes


# Whatever is not printable ASCII, and the comma.
_UNPRINTABLE = re.compile(r"[^ -+\--~]")


class Priority(IntEnum):
    """Whose turn it is in the engine: as in vLLM, lower goes first and is preempted last."""

    KEYSTROKE = 0  # an autocompletion, or part of a search: worthless a second later
    CHAT = 1
    AGENT = 2  # has tools, and so a long prompt, and nobody who watches each answer
    INDEXING = 3  # embeddings of many texts
    BACKGROUND = 4  # has asked to go last


@dataclass(eq=False)
class Exchange:
    """One request and its outcome. Times are seconds of `time.monotonic()`."""

    path: str
    method: str = "POST"
    request_headers: Headers = field(default_factory=Headers)
    address: str = ""  # the client's IP address; empty on a Unix socket
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    started: float = field(default_factory=time.monotonic)
    # Who asks: the name of the key, and the client as the queue and the rate limits know it.
    key_name: str = ""
    client: str = ""
    # Whose turn in the queue it takes: one that cannot be changed at will.
    group: str = ""
    alias: str = ""
    # The published name by which the model was meant.
    name: str = ""
    # The model that was meant, where another answers for it.
    fallback_from: str = ""
    # A model with a longer context answers if the prompt does not fit, so it is not shortened.
    wider: bool = False
    body: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    # Asked with `functions`, so that it is answered with `function_call`.
    old_functions: bool = False
    # What it asks the engine to decode together: prompts times choices. It takes as many slots.
    sequences: int = 1
    priority: Priority = Priority.CHAT
    # Has `service_tier: flex`, OpenAI's word for requests that may wait.
    flex: bool = False
    # Bytes of the body as the client sent it, decompressed.
    size: int = 0
    # How `prompt` and `suffix` become one prompt, in a fill-in-the-middle request.
    fim: Family | None = None
    queue_wait: float | None = None
    queue_position: int | None = None
    in_flight: int | None = None
    # Seconds for which it was not read because its engine answered autocompletions.
    gave_way: float = 0.0
    # Identifies what is asked, in the quarantine.
    digest: str = ""
    # The engine that answers, once it is chosen.
    replica: Replica | None = None
    # Set when its engine hangs.
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    # Left out of the prompt so that it fits.
    truncated_messages: int = 0
    truncated_tokens: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    # What of the turn before is read again.
    loss: Loss | None = None
    # Of the last event of a stream of the Responses API.
    sequence_number: int | None = None
    # One word for why the request was not served, and whether its client left.
    reason: str = ""
    aborted: bool = False
    # Headers to add to the response.
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, scope: Scope) -> "Exchange":
        """The exchange of a request that has just come in."""
        connection = HTTPConnection(scope)
        return cls(
            canonical(scope["path"]),
            scope["method"],
            connection.headers,
            connection.client.host if connection.client else "",
        )

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        """The exchange that the outermost layer put into `scope`."""
        exchange: Exchange = scope["duoserve"]
        return exchange

    def checkpoint(self) -> Callable[[], None]:
        """A function that makes this what it is now, for another attempt by another model."""
        saved, headers, body = dict(vars(self)), dict(self.headers), orjson.dumps(self.body)

        def restore() -> None:
            vars(self).update(
                saved, headers=dict(headers), body=orjson.loads(body), abandoned=asyncio.Event()
            )

        return restore

    @property
    def tool(self) -> str:
        """The program that asks: the first product of its User-Agent, without the version."""
        product = _PRODUCT.match(self.request_headers.get("user-agent", ""))
        return product[0].lower() if product else "unknown"

    def ignore(self, name: str) -> None:
        """Say in the response that the parameter `name` was left out."""
        # Quick, because a request may have a hundred thousand such names.
        name, told = _UNPRINTABLE.sub("?", name[:_LONGEST_NAME]), self.headers.get("x-duoserve-ignored", "")
        more = f"{told}, {name}" if told else name
        if len(more) <= _LONGEST_HEADER and f", {name}," not in f", {told},":
            self.headers["x-duoserve-ignored"] = more

    def note_set(self, name: str, value: float | str) -> None:
        """Say in the response that the parameter `name` was set to `value`."""
        told = filter(None, (self.headers.get("x-duoserve-set"), f"{name}={value}"))
        self.headers["x-duoserve-set"] = ", ".join(told)

    @property
    def chosen(self) -> Replica:
        """The engine that answers; only valid inside `ChooseReplica`."""
        assert self.replica is not None  # noqa: S101 - for the type checker
        return self.replica
