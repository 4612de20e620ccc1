"""Sends the requests that a tool sends (requests.yaml) to the service, and tells which ones work."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from services.stack.client import client
from services.stack.failure import Failure
from services.stack.ide.tools import Facts, Tool

Json = dict[str, Any]
REQUESTS = Path(__file__).with_name("requests.yaml")
TIMEOUT = 120.0  # seconds; a busy service lets a request wait
# After this many events of a stream the request is cancelled, as by an editor when its user types on.
MOST_EVENTS = 40


@dataclass(frozen=True)
class ToolRequest:
    """One request, as the tool sends it."""

    what: str
    source: str
    path: str
    body: Json


@dataclass(frozen=True)
class Outcome:
    """What a request led to. `seconds` is the time to the first token, or to the whole answer."""

    request: ToolRequest
    works: bool
    detail: str
    seconds: float


def requests_of(tool: str, coder: str, fim_model: str, embedding: str = "") -> list[ToolRequest]:
    """The requests of `tool` to the model `coder`, to `fim_model` where it fills in the middle, and to
    `embedding`, if there is one, for its index.
    """
    table = yaml.safe_load(REQUESTS.read_text())
    entries = table.get(tool, table["any"])
    names = {"@coder@": coder, "@fim_model@": fim_model, "@embedding@": embedding}
    return [
        ToolRequest(entry["what"], entry["source"], entry["path"], _filled(entry["body"], names))
        for entry in entries
        if embedding or entry["body"].get("model") != "@embedding@"
    ]


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def run(tool: Tool, facts: Facts) -> Iterator[Outcome]:
    """Send the tool's requests one after the other.

    Raises:
        Failure: the key is not known, or nothing answers.
    """
    if not facts.key:
        raise Failure("the key is not known; set DUOSERVE_API_KEY to the key of that service.")
    try:
        with client(facts.base, timeout=5) as asked:
            asked.get(f"{facts.base}/health").raise_for_status()
    except httpx.HTTPError as error:
        raise Failure(f"nothing answers at {facts.base} ({_line(error)}); start it with ./run up.") from None
    for request in requests_of(tool.name, facts.coder, facts.fim_model, facts.embedding):
        yield send(request, facts.base, facts.key)


def send(request: ToolRequest, base: str, key: str) -> Outcome:
    """Send one request, and check that the answer has the form of its API."""
    with client(base, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT) as asked:
        start = time.monotonic()
        try:
            with asked.stream("POST", f"{base}{request.path}", json=request.body) as answer:
                works, detail, first = _read(answer, request.body.get("stream", False))
        except (httpx.HTTPError, ValueError) as error:
            works, detail, first = False, _line(error), None
        return Outcome(request, works, detail, (first or time.monotonic()) - start)


def _read(answer: httpx.Response, stream: bool) -> tuple[bool, str, float | None]:
    """Whether the answer is as it should be, what it is, and when its first token came."""
    if answer.is_error:
        return False, f"{answer.status_code}: {_message(answer.read())}", None
    if not stream:
        body = json.loads(answer.read())
        whole = any(body.get(name) for name in ("choices", "data")) or any(
            body.get(name) is not None for name in ("content", "output")
        )
        return bool(whole), "answered" if whole else "answered with something else", None
    first = None
    for number, event in enumerate(_events(answer.iter_lines())):
        if isinstance(event.get("error"), dict):
            return False, str(event["error"].get("message")), None
        first = first or time.monotonic()
        if number >= MOST_EVENTS:
            break
    return first is not None, "streamed" if first else "ended without a token", first


def _events(lines: Iterable[str]) -> Iterator[Json]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
