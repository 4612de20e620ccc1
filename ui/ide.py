"""Settings of editors and agents for this service, from the table that `./run ide` uses too."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ui.router_client import ListedModel

HIDDEN = "YOUR-TEAM-KEY"  # stands for the key until somebody asks to see it
# Lines that are only for a service that has this.
_OPTIONAL = re.compile(r"^ *@if (\w+)@\n(.*?)^ *@end@\n", re.MULTILINE | re.DOTALL)
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
        """The configuration with `values` in place of their names, without what needs an empty one."""
        text = _OPTIONAL.sub(lambda found: found[2] if values[found[1]] else "", self.config)
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


def values(base: str, key: str, models: Sequence[ListedModel], ratio: float) -> dict[str, str]:
    """What goes into the configurations, by the names that config/ide.yaml uses.

    `models` are those of /v1/models: the first to chat with is for code, the second for all else. `ratio` is
    the share of a context that a prompt may fill.
    """
    own = [model for model in models if model.name == model.root]
    coder, general = ([model for model in own if model.mode == "chat"] * 2 or [ListedModel("", "", 0)] * 2)[
        :2
    ]
    fim = next((model for model in own if model.mode == "completion"), coder)
    embedding = next((model for model in own if model.mode == "embedding"), ListedModel("", "", 0))
    # The real name, which comes first after the alias: tools choose their fill-in-the-middle tokens by it.
    names = [model.name for model in models if model.root == fim.name]
    fim_model = next((name for name in names if name != fim.name), fim.name)
    scheme, _, host = base.partition("://")
    filled = {"base": base, "scheme": scheme, "host": host, "key": key, "fim_model": fim_model}
    rest = []
    for role, model in {"coder": coder, "general": general}.items():
        prompt = int(model.window * ratio)
        rest.append(model.window - prompt)
        filled |= {role: model.name, f"{role}_window": str(model.window), f"{role}_prompt": str(prompt)}
    filled |= {
        "embedding": embedding.name,
        "embedding_window": str(embedding.window),
        "embedding_size": str(embedding.vector_size or ""),
    }
    return filled | {"answer": str(min(rest))}
