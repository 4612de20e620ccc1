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
    cached_tokens: int | None = None
    queue_wait: float | None = None  # from the router's headers
    queue_position: int | None = None
    retry_after: float | None = None
    truncated_messages: int = 0
    suffix_ignored: bool = False
    canary: str = ""
    # In a replayed session: which one, which turn from 0 on, and of how many.
    session: str = ""
    turn: int = 0
    turns: int = 0
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
        for name in ("cached_tokens", "session", "turn", "turns"):
            if not self.session:  # what only replays have
                del data[name]
        return data


def values(samples: Sequence[Sample], metric: str) -> list[float]:
    """A metric's times in milliseconds: those of complete answers; for `refusal`, those of refusals; for
    `session`, the sums over complete sessions.
    """
    if metric == "session":
        return [sum(s.total or 0.0 for s in turns) for turns in sessions(samples)]
    if metric == "refusal":
        return [s.total for s in samples if s.refused and s.total is not None]
    if metric == "itl":
        return [gap for s in samples if s.ok for gap in s.itl]
    return [value for s in samples if s.ok and (value := getattr(s, metric)) is not None]


def sessions(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The turns of each replayed session of which all turns have complete answers."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.session and sample.ok:
            found.setdefault(sample.session, []).append(sample)
    return [turns for turns in found.values() if len(turns) == turns[0].turns]


def found_again(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """For each later turn of a replayed session: the tokens of the turn before that were in the prefix cache,
    and all tokens of that turn's prompt.
    """
    prompts = {(s.session, s.turn): s.prompt_tokens for s in samples if s.session and s.ok}
    return [
        (min(s.cached_tokens, before), before)
        for s in samples
        if s.ok and s.cached_tokens is not None and (before := prompts.get((s.session, s.turn - 1)))
    ]


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
