"""What the layers know about one request, handed on in `scope["duoserve"]`."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope


@dataclass
class Exchange:
    """One request and what became of it. Times are seconds of `time.monotonic()`."""

    path: str
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    started: float = field(default_factory=time.monotonic)
    # Who asks: the name of the key, and, within it, what tells one developer from another.
    key_name: str = ""
    client: str = ""
    alias: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    # Headers of the response, beside those of the engine.
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        """The exchange that the outermost layer put into `scope`."""
        exchange: Exchange = scope["duoserve"]
        return exchange


def header(scope: Scope, name: bytes) -> str:
    """The value of a request header, or an empty string. `name` is in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""
