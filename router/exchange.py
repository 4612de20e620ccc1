"""What the layers know about one request, handed on in `scope["duoserve"]`."""

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

if TYPE_CHECKING:
    from router.engines import Replica
    from router.fim import Family


@dataclass
class Exchange:
    """One request and what became of it. Times are seconds of `time.monotonic()`."""

    path: str
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    their_id: str = ""
    started: float = field(default_factory=time.monotonic)
    # Who asks: the name of the key, and the client that the queue and the limits know.
    key_name: str = ""
    client: str = ""
    alias: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    # Autocompletion, which goes ahead of chat.
    urgent: bool = False
    fim: "Family | None" = None
    queue_wait: float | None = None
    queue_position: int | None = None
    in_flight: int | None = None
    # The engine that answers, once it is chosen.
    replica: "Replica | None" = None
    # Left out of the prompt so that it fits.
    truncated_messages: int = 0
    truncated_tokens: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    # One word for why the request was not served, and whether its client left.
    reason: str = ""
    aborted: bool = False
    # Headers of the response, beside those of the engine.
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        """The exchange that the outermost layer put into `scope`."""
        exchange: Exchange = scope["duoserve"]
        return exchange

    @property
    def chosen(self) -> "Replica":
        """The engine that answers. To be asked only inside `Choose` (replicas.py)."""
        assert self.replica is not None  # noqa: S101 - for the type checker
        return self.replica


def header(scope: Scope, name: bytes) -> str:
    """The value of a request header, or an empty string. `name` is in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""
