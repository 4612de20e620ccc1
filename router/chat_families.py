"""What chat templates do, by model family, from config/chat_families.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from router.errors import BadSettings


@dataclass(frozen=True)
class ChatFamily:
    """One family of chat templates; the top of config/chat_families.yaml explains the fields."""

    name: str
    models: tuple[str, ...]  # parts of model names, in lower case
    inline_system: bool
    template: Mapping[str, Any] = field(default_factory=dict)


def read_chat_families(path: Path) -> list[ChatFamily]:
    """The families in `path` (config/chat_families.yaml).

    Raises:
        BadSettings: the file cannot be read, or an entry is incomplete.
    """
    try:
        return [
            ChatFamily(name, tuple(entry["models"]), entry["inline_system"], entry.get("template", {}))
            for name, entry in yaml.safe_load(path.read_text()).items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None


def chat_family_of(model: str, families: Sequence[ChatFamily]) -> ChatFamily | None:
    """The family of the model with this name, or None."""
    return next((family for family in families if any(part in model.lower() for part in family.models)), None)
