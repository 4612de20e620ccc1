"""What every route's way of phrasing an answer shares."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mock_engine.answers import Answer
from mock_engine.prompts import Json


def error_body(status: int, message: str) -> Json:
    """An error as vLLM gives it."""
    kinds = {
        400: "BadRequestError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    }
    kind = kinds.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def sse(data: Json | str, event: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + b"data: " + text.encode() + b"\n\n"


class Dialect:
    """How one route phrases an answer, as bytes of server-sent events or as one JSON object."""

    def __init__(self, answer: Answer) -> None:
        """Phrase `answer`."""
        self.answer = answer

    def announcement(self) -> bytes:
        """What comes before the prompt has been read."""
        return b""

    def first(self) -> bytes:
        """What comes just before the first token."""
        return b""

    def tokens(self) -> Iterator[bytes]:
        """The event(s) of each token."""
        raise NotImplementedError

    def last(self) -> bytes:
        """What comes just after the last token."""
        raise NotImplementedError

    def error(self) -> bytes:
        """An error inside the stream."""
        return sse(error_body(500, self.answer.knobs.error_message)) + sse("[DONE]")

    def whole(self) -> Json:
        """The answer when it is not streamed."""
        raise NotImplementedError


def spliced(template: Json, pieces: list[str], event: str = "") -> Iterator[bytes]:
    """Events equal to `template` with its string "\\0" replaced by each piece; serialised only once."""
    head, tail = sse(template, event).split(b'"\\u0000"')
    cache: dict[str, bytes] = {}
    for piece in pieces:
        if piece not in cache:
            cache[piece] = head + json.dumps(piece, ensure_ascii=False).encode() + tail
        yield cache[piece]
