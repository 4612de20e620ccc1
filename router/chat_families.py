"""What chat templates do, by model family, from config/chat_families.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from router.errors import BadSettings

# How much a model may think, in rising order. OpenAI, Anthropic and vLLM each know a part of them.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Thinking:
    """How a template is told whether to have the model think, and how much."""

    think: Mapping[str, Any]
    quick: Mapping[str, Any]
    efforts: tuple[str, ...] = ()

    def nearest(self, effort: str) -> str | None:
        """The effort that the template knows and that comes nearest; None if it knows none."""
        if not self.efforts or (effort == "none" and self.quick):
            return None
        wanted = EFFORTS.index(effort)
        return min(
            self.efforts, key=lambda known: (abs(EFFORTS.index(known) - wanted), -EFFORTS.index(known))
        )


DEFAULT_THINKING = Thinking({"enable_thinking": True}, {"enable_thinking": False})


@dataclass(frozen=True)
class ChatFamily:
    """One family of chat templates; the top of config/chat_families.yaml explains the fields."""

    name: str
    models: tuple[str, ...]  # parts of model names, in lower case
    inline_system: bool
    template: Mapping[str, Any] = field(default_factory=dict)
    thinking: Thinking = DEFAULT_THINKING
    drops_thinking: bool = False


def read_chat_families(path: Path) -> list[ChatFamily]:
    """The families in `path` (config/chat_families.yaml).

    Raises:
        BadSettings: the file cannot be read, or an entry is incomplete.
    """
    try:
        return [
            ChatFamily(
                name,
                tuple(entry["models"]),
                entry["inline_system"],
                entry.get("template", {}),
                Thinking(
                    entry.get("think", DEFAULT_THINKING.think),
                    entry.get("quick", DEFAULT_THINKING.quick),
                    tuple(entry.get("efforts", ())),
                ),
                entry.get("drops_thinking", False),
            )
            for name, entry in yaml.safe_load(path.read_text()).items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None


def chat_family_of(model: str, families: Sequence[ChatFamily]) -> ChatFamily | None:
    """The family of the model with this name, or None."""
    return next((family for family in families if any(part in model.lower() for part in family.models)), None)
