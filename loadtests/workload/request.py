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
    # Whether any text will do: with random weights it is noise.
    any_text: bool = False
