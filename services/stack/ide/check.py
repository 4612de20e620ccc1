"""Sends a tool's own requests (requests.yaml) to the service and says what works."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.ide.tools import Facts, Failure, Tool

Json = dict[str, Any]
REQUESTS = Path(__file__).with_name("requests.yaml")
TIMEOUT = 120.0  # seconds; a busy service lets a request wait
# So many events of a stream are read; then the request is given up, as an editor does when one types on.
MOST_EVENTS = 40


@dataclass(frozen=True)
class Request:
    """One request as the tool sends it."""

    what: str
    source: str
    path: str
    body: Json


@dataclass(frozen=True)
class Outcome:
    """What became of a request. `seconds` is the time to the first token, or of the whole answer."""

    request: Request
    works: bool
    said: str
    seconds: float


def requests_of(tool: str, fim_model: str) -> list[Request]:
    """The requests of the tool called `tool`, for the service whose coder is also called `fim_model`."""
    table = yaml.safe_load(REQUESTS.read_text())
    entries = table.get(tool, table["any"])
    return [
        Request(entry["what"], entry["source"], entry["path"], _filled(entry["body"], fim_model))
        for entry in entries
    ]


def _filled(value: Any, fim_model: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, fim_model) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, fim_model) for item in value]
    return value.replace("@fim_model@", fim_model) if isinstance(value, str) else value


def run(tool: Tool, facts: Facts) -> Iterator[Outcome]:
    """Send the tool's requests one after the other.

    Raises:
        Failure: there is no key, or nothing answers at the address.
    """
    if not facts.key:
        raise Failure("The key is not known; set DUOSERVE_API_KEY to the key of that service.")
    try:
        urllib.request.urlopen(f"{facts.base}/health", timeout=5).close()  # noqa: S310 - the scheme was checked
    except (OSError, ValueError) as error:
        raise Failure(f"Nothing serves at {facts.base} ({_reason(error)}); start it with ./run up.") from None
    for request in requests_of(tool.name, facts.fim_model):
        yield send(request, facts.base, facts.key)


def send(request: Request, base: str, key: str) -> Outcome:
    """Send one request and look whether an answer comes in the API's own form."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    asked = urllib.request.Request(  # noqa: S310 - the scheme was checked
        f"{base}{request.path}", json.dumps(request.body).encode(), headers
    )
    start = time.monotonic()
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310
            if not request.body.get("stream"):
                text = _text(json.load(answer))
                return Outcome(request, text is not None, "answered", time.monotonic() - start)
            said, first = "", 0.0
            for number, event in enumerate(_events(answer)):
                if isinstance(event.get("error"), dict):
                    return Outcome(
                        request, False, str(event["error"].get("message")), time.monotonic() - start
                    )
                first = first or time.monotonic() - start
                said += _text(event) or ""
                if number >= MOST_EVENTS:
                    break
            return Outcome(request, first > 0, "streamed" if first else "ended without a token", first)
    except urllib.error.HTTPError as error:
        return Outcome(request, False, f"{error.code}: {_message(error.read())}", time.monotonic() - start)
    except (OSError, ValueError) as error:
        return Outcome(request, False, _reason(error), time.monotonic() - start)


def _events(lines: Any) -> Iterator[Json]:
    for line in lines:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _text(answer: Json) -> str | None:
    """The text of an answer or of one event in any of the four APIs; None in an object of another kind."""
    for choice in answer.get("choices") or ():
        part = choice.get("delta") or choice.get("message") or choice
        return str(part.get("text") or part.get("content") or "")
    if isinstance(answer.get("delta"), dict):
        return str(answer["delta"].get("text") or "")
    if isinstance(answer.get("delta"), str):
        return str(answer["delta"])
    return "" if answer.get("content") is not None or answer.get("output") is not None else None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())
