"""One client sends far more than a model reads, again and again: the others' first tokens come as before."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest

from router.paths import CHAT, COUNT_TOKENS
from tests.support.service import KEY, Service, chat

MOST = 1.5  # times as long as without that client
# Rounds with and without it, in turn, and how many requests are timed in each. What other programs do to one
# round weighs less among more, so after too slow ones come as many again, twice at most.
ROUNDS, ASKED = 6, 6
TTFT_MS = 30  # of the engine itself
SHORT, LONG = 8192, 131_072  # contexts; the first is that of the embedded models
# A process of its own, so that it costs the client that measures little. For each line it sends the body in a
# file, and prints the status of the answer.
FLOOD = """
import http.client, os, pathlib, sys
os.nice(19)
port, path, key, file = sys.argv[1:]
body = pathlib.Path(file).read_bytes()
headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
for _ in sys.stdin:
    connection = http.client.HTTPConnection("127.0.0.1", int(port))
    connection.request("POST", path, body, headers)
    print(connection.getresponse().status, flush=True)
    connection.close()
"""


# Whom the others ask: the same engine, which is to see nothing of what is refused, or the other one, where it
# has to count.
SAME, OTHER = "coder", "general"
KINDS = {
    "a message of 15 MB": (SHORT, SAME, CHAT, 1, 15_000_000),
    "4 MB in 500 messages": (SHORT, SAME, CHAT, 500, 4_000_000),
    "4 MB to be counted": (SHORT, SAME, COUNT_TOKENS, 100, 4_000_000),
    "15,000 messages": (SHORT, SAME, CHAT, 15_000, 150_000),
    "as much as is counted": (SHORT, OTHER, CHAT, 100, 900_000),
    "15,000 messages for a long context": (LONG, OTHER, CHAT, 15_000, 150_000),
}


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("router"), window=request.param) as running:
        for engine in running.engines.values():
            engine.set(ttft_ms=TTFT_MS, completion_tokens=1)
        yield running


@asynccontextmanager
async def flooded(flood: asyncio.subprocess.Process, statuses: Counter[str]) -> AsyncIterator[None]:
    """One request after the other is sent; counts the answers' statuses."""
    assert flood.stdin and flood.stdout
    stdin, stdout = flood.stdin, flood.stdout
    ending = False

    async def send() -> None:
        while not ending:
            stdin.write(b"\n")
            statuses[(await stdout.readline()).decode().strip()] += 1

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        ending = True
        await sending


async def first_token(client: httpx.AsyncClient, model: str) -> float:
    """Seconds until the first event of a stream."""
    began = time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=chat(model=model, stream=True)) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                return time.monotonic() - began
    raise AssertionError("no event came")


@pytest.mark.parametrize(
    ("service", "asked", "path", "messages", "size"), KINDS.values(), ids=KINDS, indirect=["service"]
)
async def test_the_others_first_tokens_come_as_before(
    service: Service, asked: str, path: str, messages: int, size: int, tmp_path: Path
) -> None:
    """`size` is that of the body, in bytes, roughly."""
    message = {"role": "user", "content": "word " * (size // messages // 5)}
    file = tmp_path / "body"
    file.write_text(json.dumps({"model": "coder", "messages": [message] * messages}))
    flood = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FLOOD,
        str(service.port),
        path,
        KEY,
        str(file),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    without: list[float] = []
    beside: list[float] = []
    statuses: Counter[str] = Counter()
    try:
        async with service.client() as client:
            await first_token(client, asked)
            for number in range(3 * ROUNDS):
                if number and number % ROUNDS == 0 and median(beside) / median(without) < MOST:
                    break
                without += [await first_token(client, asked) for _ in range(ASKED)]
                async with flooded(flood, statuses):
                    beside += [await first_token(client, asked) for _ in range(ASKED)]
    finally:
        flood.kill()
        await flood.wait()
    ratio = median(beside) / median(without)
    print(f"{ratio:.2f} times {1000 * median(without):.0f} ms; {dict(statuses)}")
    assert set(statuses) <= {"200", "400"}
    assert ratio < MOST
