"""Settings of editors and agents for this service, from the table that `./run ide` uses too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HIDDEN = "YOUR-TEAM-KEY"  # stands for the key until somebody asks to see it
_CONFIG = Path(__file__).resolve().parents[1] / "config"


@dataclass(frozen=True)
class Tool:
    """One entry of config/ide.yaml; the comment at its top explains the fields."""

    title: str
    file: str  # where the configuration goes; empty when it is entered by hand
    language: str
    config: str
    limits: str

    def settings(self, values: Mapping[str, str]) -> str:
        """The configuration with `values` in place of their names."""
        text = self.config
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text


def tools(table: Path = _CONFIG / "ide.yaml") -> list[Tool]:
    """The tools of the table, in its order; none if there is no table."""
    if not table.exists():
        return []
    entries: dict[str, dict[str, Any]] = yaml.safe_load(table.read_text())
    return [
        Tool(
            entry["title"],
            (entry.get("file") or {}).get("path", ""),
            entry["language"],
            entry["config"],
            entry["limits"],
        )
        for entry in entries.values()
    ]


def values(
    base: str, key: str, windows: Mapping[str, int], ratio: float, coder_names: list[str]
) -> dict[str, str]:
    """What goes into the configurations, by the names that config/ide.yaml uses.

    `windows` are in tokens; `coder_names` are the model names that mean the coder.
    """
    families = yaml.safe_load((_CONFIG / "fim.yaml").read_text())
    parts = [part for family in families.values() for part in family["models"]]
    fim_model = next((name for name in coder_names if any(part in name.lower() for part in parts)), "coder")
    scheme, _, host = base.partition("://")
    filled = {"base": base, "scheme": scheme, "host": host, "key": key, "fim_model": fim_model}
    rest = []
    for model in ("coder", "general"):
        window = windows.get(model, 0)
        prompt = int(window * ratio)
        rest.append(window - prompt)
        filled |= {f"{model}_window": str(window), f"{model}_prompt": str(prompt)}
    return filled | {"answer": str(min(rest))}
