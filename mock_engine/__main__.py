"""A mock engine: looks like vLLM to routers and clients, with exact timing and faults on demand.

    python -m mock_engine --port 9001 --model coder --ttft-ms 200 --itl-ms 20

Served as vLLM 0.32 serves it: GET /health /v1/models /metrics, POST /tokenize /detokenize
/v1/chat/completions /v1/completions /v1/messages (and /count_tokens) /v1/responses, streaming and not;
/v1/embeddings /v1/rerank. As Gemini's API has it: POST /v1beta/models/NAME:generateContent and
:streamGenerateContent. A client that disconnects frees its slot at once.

Every field of `Knobs` is a command-line option (`--ttft-ms 200`), and can be changed while it runs:

- for one request, by `mock:{"ttft_ms": 500, "status": 429}` (JSON) in its last user message or prompt;
- for all that follow, by `POST /mock {"itl_ms": 5}`; with `"times": 2` for the next two generations only;
- `DELETE /mock` forgets the recorded requests and returns to the command line's values;
- `GET /mock` gives `{"knobs", "running", "waiting", "requests"}`. Each recorded request has `path`,
  `headers` (without credentials), `body`, `knobs` (those it ran under), `state` (waiting, running, finished,
  aborted, dropped), `chunks` sent so far, and `arrived_at`, `started_at`, `ended_at` in seconds of the
  monotonic clock. Health, metrics, models and /mock are not recorded; /tokenize is with
  `--record-tokenize true`.

Timing: token i of an answer is written at start + ttft_ms + i * itl_ms, where start is when the request got a
slot and its prompt was read (`read_tokens_per_s`), so delays never add up. As in vLLM the role event comes
together with the first token. Answers are `completion_tokens` long unless max_tokens is less; the same prompt
gets the same answer.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from mock_engine.connection import Connection
from mock_engine.knobs import Knobs
from mock_engine.state import State


def flag(text: str) -> bool:
    """`true` or `false` on the command line."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"takes true or false, not {text!r}")
    return text == "true"


def parse_arguments(arguments: list[str]) -> tuple[str, int, str, Knobs]:
    """Host, port, model and knobs from the command line."""
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m mock_engine",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; it is printed")
    parser.add_argument("--model", default="coder", help="name, or names with commas (default coder)")
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": flag, "str": str}
    for field in dataclasses.fields(Knobs):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=readers.get(str(field.type), json.loads), default=field.default)
    options = vars(parser.parse_args(arguments))
    return options.pop("host"), options.pop("port"), options.pop("model"), Knobs(**options)


async def serve(host: str, port: int, model: str, knobs: Knobs) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once it listens."""
    loop = asyncio.get_running_loop()
    engine = State(tuple(model.split(",")), knobs)
    server = await loop.create_server(lambda: Connection(engine), host, port, backlog=1024)
    print(f"mock engine {model!r} on http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(*parse_arguments(sys.argv[1:])))
