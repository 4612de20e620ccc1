"""`./run eval votes --file FILE`: how often people preferred a model, in votes from the chat app."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from services.stack.failure import Failure

_TIES = ("tie", "neither")


def votes(file: str | None) -> int:
    """Print the votes of each pair of models in `file`, which the chat app exported; returns 0.

    Raises:
        Failure: there is no such file, or it holds no votes.
    """
    if not file:
        raise Failure("votes needs --file: what the chat app saved with “Export votes”.")
    table = Table("models", "votes", "better", "equally good", "neither", box=None, header_style="bold")
    for (first, second), counts in sorted(count(_read(Path(file))).items()):
        decided = counts[first] + counts[second]
        shares = [
            f"{name} {counts[name]}" + (f" ({counts[name] / decided:.0%})" if decided else "")
            for name in (first, second)
        ]
        row = (f"{first}, {second}", counts.total(), ", ".join(shares), counts["tie"], counts["neither"])
        table.add_row(*map(str, row))
    Console().print(table)
    return 0


def count(given: list[dict[str, Any]]) -> dict[tuple[str, str], Counter[str]]:
    """For each pair of models, in alphabetical order, how often each was better, both, or neither."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for vote in given:
        first, second = sorted(vote["models"])
        found.setdefault((first, second), Counter())[vote["better"]] += 1
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        given: Any = json.loads(path.read_text())
        found = given["votes"]
        for vote in found:
            first, second = vote["models"]
            if vote["better"] not in (first, second, *_TIES):
                raise ValueError(vote["better"])
    except OSError as error:
        raise Failure(f"cannot read {path} ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path} holds no votes; save them in the chat app with “Export votes”.") from None
    if not found:
        raise Failure(f"{path} holds no votes yet.")
    return list(found)
