"""The request log of a service that runs."""

import json
from pathlib import Path
from typing import Any


def records(home: Path) -> list[dict[str, Any]]:
    """What requests.jsonl has below the folder of a service, without a last line that is half written."""
    path = home / "data" / "logs" / "requests.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
