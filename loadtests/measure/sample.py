"""One measured request: the times of its answer, and how it ended."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Outcomes of requests that the service turned away.
REFUSALS = ("rejected", "unavailable")

# One ordinary character over and over is what broken kernels give ("!!!!"); rulers and indents are not.
REPEATED = re.compile(r"([^\s\-=_#*.~/\\|+>0])\1{39}")


@dataclass
class Sample:
    """One measured request. Times are milliseconds since `started`, None where not reached."""

    kind: str
    started: float  # seconds of time.monotonic(); in open-loop mode the time the request was due
    outcome: str = "ok"
    detail: str = ""
    users: int = 0
    target: str = "router"
    status: int = 0
    late: float = 0.0  # how long after `started` it was really sent
    ttft: float | None = None  # first delta of any kind
    first_content: float | None = None  # first content or tool call, after any reasoning
    total: float | None = None  # last event of the stream
    itl: list[float] = field(default_factory=list)  # gaps between the events that carry tokens
    events: int = 0  # events that carry tokens
    prompt_tokens: int | None = None  # from the usage event
    completion_tokens: int | None = None
    queue_wait: float | None = None  # from the router's headers
    queue_position: int | None = None
    retry_after: float | None = None
    truncated_messages: int = 0
    suffix_ignored: bool = False
    canary: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether this is a complete answer; only those have latencies."""
        return self.outcome == "ok"

    @property
    def refused(self) -> bool:
        """Whether the service turned the request away (429, 503)."""
        return self.outcome in REFUSALS

    def as_json(self) -> dict[str, Any]:
        """Plain data, with times rounded to the microsecond; the text only of a canary."""
        data = asdict(self)
        data["itl"] = [round(gap, 3) for gap in self.itl]
        for name in ("ttft", "first_content", "total", "late"):
            data[name] = None if data[name] is None else round(data[name], 3)
        data["text"] = self.text if self.canary else ""
        return data


def values(samples: Sequence[Sample], metric: str) -> list[float]:
    """A metric's times in milliseconds: those of complete answers, or for `refusal` those of refusals."""
    if metric == "refusal":
        return [s.total for s in samples if s.refused and s.total is not None]
    if metric == "itl":
        return [gap for s in samples if s.ok for gap in s.itl]
    return [value for s in samples if s.ok and (value := getattr(s, metric)) is not None]


def looks_like_garbage(text: str) -> bool:
    """Whether no sane model writes this: undecodable or control characters, or one character repeated."""
    if REPEATED.search(text):
        return True
    # A cut at max_tokens may leave one half character; more than that is corruption.
    strange = sum(
        character == "\ufffd" or unicodedata.category(character) in ("Cc", "Co", "Cn")
        for character in text
        if character not in "\n\r\t"
    )
    return strange > max(1, len(text) // 50)
