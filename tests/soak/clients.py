"""Closed-loop clients of mixed kinds, and what became of each of their requests."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

Json = dict[str, Any]
Body = Callable[[Random], tuple[str, Json]]

MODELS = ("coder", "general")
_PAUSE_SECONDS = 0.8  # the mean between an answer and the next request
_PATIENCE_SECONDS = 200.0  # longer than the router may take for a request
_ERRORS = (b'data: {"error"', b"event: error")
_ENDS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed")


def _about(rng: Random) -> str:
    """A prompt of 10 to some 800 tokens, unlike all others from its beginning."""
    number = rng.randrange(10**6)
    return f"{number} is a number. Tell me about it. " + "It is a number. " * rng.choice((0, 0, 0, 40, 160))


def _chat(rng: Random, **more: Any) -> tuple[str, Json]:
    messages = [{"role": "user", "content": _about(rng)}]
    return "/v1/chat/completions", {"messages": messages, "max_tokens": 60} | more


def _structured(rng: Random) -> tuple[str, Json]:
    names = [f"n{rng.randrange(200)}" for _ in range(3)]
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
    form = {"name": "facts", "schema": schema | {"required": sorted(set(names))}}
    return _chat(rng, response_format={"type": "json_schema", "json_schema": form})


def prompts(*tokens: int) -> Body:
    """One request that has prompts of so many tokens read, unlike all others."""

    def body(rng: Random) -> tuple[str, Json]:
        numbers = [[rng.randrange(1000, 40_000) for _ in range(count)] for count in tokens]
        return "/v1/completions", {"prompt": numbers, "max_tokens": 1}

    return body


def _fim(rng: Random) -> tuple[str, Json]:
    prompt = f"def add_{rng.randrange(10**6)}(a, b):\n    return "
    return "/v1/completions", {"prompt": prompt, "suffix": "\n\nprint(add(1, 2))\n", "max_tokens": 20}


def _messages(rng: Random) -> tuple[str, Json]:
    return "/v1/messages", _chat(rng, stream=True)[1]


# How often, and what is sent. Of two kinds the clients leave or never read.
KINDS: dict[str, tuple[int, Body]] = {
    "chat, streamed": (4, lambda rng: _chat(rng, stream=True)),
    "chat": (2, _chat),
    "structured": (1, _structured),
    "completion": (2, lambda rng: ("/v1/completions", {"prompt": _about(rng), "max_tokens": 30})),
    "fill in the middle": (4, _fim),
    "messages": (2, _messages),
    "count tokens": (
        1,
        lambda rng: ("/v1/messages/count_tokens", {"messages": _chat(rng)[1]["messages"]}),
    ),
    "responses": (
        2,
        lambda rng: ("/v1/responses", {"input": _about(rng), "max_output_tokens": 60, "stream": True}),
    ),
    "leaves": (3, lambda rng: _chat(rng, stream=True, max_tokens=300)),
    "never reads": (1, lambda rng: _chat(rng, stream=True)),
}
# More than the buffers between the engine and a client hold: some 10 MB.
TORRENT: Json = {
    "messages": [{"role": "user", "content": "Count from 1 to 10000."}],
    "max_tokens": 4000,
    "ignore_eos": True,
    "logprobs": True,
    "top_logprobs": 20,
    "n": 2,
    "stream": True,
}


@dataclass
class Request:
    """One request. Times are seconds of `time.monotonic()`; `outcome` is one word.

    answered: in full. refused: with an error's status. failed: an error ended its stream. left: its client
    went away. unread: its client never read. broken: the connection was. unsent: there was no connection, so
    the router never had it. Empty: in flight.
    """

    id: str
    kind: str
    began: float
    ended: float = float("inf")
    sent: bool = False
    outcome: str = ""
    status: int | None = None


class Clients:
    """`count` clients in a thread of their own, from `start` to `stop`, and others that tests ask for."""

    def __init__(self, url: str, headers: dict[str, str], count: int) -> None:
        self._url, self._headers, self._count = url, headers | {"User-Agent": "soak/1"}, count
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._all: list[Request] = []

    @property
    def requests(self) -> list[Request]:
        """Those that the router can have had, in flight or not."""
        return [request for request in list(self._all) if request.sent]

    def start(self) -> None:
        self._ending.clear()
        self._working = [self._submit(self._work(number)) for number in range(self._count)]

    def stop(self) -> None:
        """Let what is in flight end."""
        self._ending.set()
        for work in self._working:
            work.result(2 * _PATIENCE_SECONDS)

    def close(self) -> None:
        self._ending.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def ask(self, model: str, kind: str = "chat", body: Body | None = None) -> Request:
        """One request, to its end. `body` is that of the kind by default."""
        asked = asyncio.run_coroutine_threadsafe(self._alone(model, kind, body), self._loop)
        return asked.result(2 * _PATIENCE_SECONDS)

    def never_read(self, count: int, model: str, seconds: float) -> list[Request]:
        """As many clients that ask for more than buffers hold, read nothing, and leave after `seconds`."""
        requests = [self._new("never reads") for _ in range(count)]
        for request in requests:
            self._submit(self._ignore(request, "/v1/chat/completions", TORRENT | {"model": model}, seconds))
        return requests

    def _submit(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _new(self, kind: str) -> Request:
        self._all.append(Request(f"soak-{next(self._numbers)}", kind, time.monotonic()))
        return self._all[-1]

    def _client(self) -> httpx.AsyncClient:
        # Shorter than the router's keep-alive of 5 s, so that no request meets a connection that it closes.
        limits = httpx.Limits(keepalive_expiry=2.0)
        return httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=_PATIENCE_SECONDS, limits=limits
        )

    async def _alone(self, model: str, kind: str, body: Body | None) -> Request:
        async with self._client() as client:
            return await self._one(client, Random(time.monotonic()), kind, model, body)

    async def _work(self, number: int) -> None:
        rng = Random(number)
        weights = [weight for weight, _ in KINDS.values()]
        async with self._client() as client:
            while not self._ending.is_set():
                (kind,) = rng.choices(list(KINDS), weights)
                request = await self._one(client, rng, kind, rng.choice(MODELS))
                well = request.outcome in ("answered", "left", "unread")
                await asyncio.sleep(rng.uniform(0, 2 * _PAUSE_SECONDS) if well else 1 + rng.random())

    async def _one(
        self, client: httpx.AsyncClient, rng: Random, kind: str, model: str, given: Body | None = None
    ) -> Request:
        request = self._new(kind)
        path, body = (given or KINDS[kind][1])(rng)
        body |= {"model": model}
        if kind == "never reads":
            await self._ignore(request, path, body, rng.uniform(3, 8))
            return request
        leaves = rng.uniform(0.05, 3) if kind == "leaves" else None
        try:
            await self._ask(client, request, path, body, leaves)
        except TimeoutError:
            request.outcome = "left"
        except httpx.TransportError:
            request.outcome = "broken" if request.sent else "unsent"
        request.ended = time.monotonic()
        return request

    async def _ask(
        self, client: httpx.AsyncClient, request: Request, path: str, body: Json, leaves: float | None
    ) -> None:
        async with asyncio.timeout(None) as staying:

            async def trace(event: str, _: Json) -> None:
                if event == "http11.send_request_body.complete":
                    request.sent = True
                    if leaves is not None:
                        staying.reschedule(asyncio.get_running_loop().time() + leaves)

            headers, extensions = {"x-request-id": request.id}, {"trace": trace}
            async with client.stream(
                "POST", path, json=body, headers=headers, extensions=extensions
            ) as response:
                request.status = response.status_code
                end = b""
                async for chunk in response.aiter_raw():
                    end = (end + chunk)[-4000:]
        if response.status_code != 200:
            request.outcome = "refused"
        elif any(error in end for error in _ERRORS) or (
            body.get("stream") and not any(last in end for last in _ENDS)
        ):
            request.outcome = "failed"
        else:
            request.outcome = "answered"

    async def _ignore(self, request: Request, path: str, body: Json, seconds: float) -> None:
        """Send, read nothing, and close after `seconds`."""
        loop, to = asyncio.get_running_loop(), urlsplit(self._url)
        content = json.dumps(body).encode()
        headers = self._headers | {"Host": to.netloc, "x-request-id": request.id}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.setblocking(False)
                await loop.sock_connect(connection, (to.hostname, to.port))
                request.sent = True
                message = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content
                await loop.sock_sendall(connection, message)
                await asyncio.sleep(seconds)
                request.outcome = "unread"
        except OSError:
            request.outcome = "broken" if request.sent else "unsent"
        request.ended = time.monotonic()
