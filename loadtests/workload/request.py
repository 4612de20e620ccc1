"""A request as the workload describes it, before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoadRequest:
    """What to ask. `kind` groups requests in the results (completion, chat, agent, ...)."""

    kind: str
    path: str
    body: dict[str, Any]
    # An answer with fewer tokens is truncated.
    min_tokens: int = 1
    # Name of a prompt whose answer is compared with the one given without load.
    canary: str = ""
    # In a replayed session: which one, which turn, and of how many.
    session: str = ""
    turn: int = 0
    turns: int = 0
    # Whether any text will do: of random weights, and to made-up words, it is noise.
    any_text: bool = False
