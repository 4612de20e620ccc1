"""Fill-in-the-middle prompts by model family, from config/fim.yaml."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from router.errors import BadSettings


@dataclass(frozen=True)
class Family:
    """How one family of models is prompted."""

    name: str
    models: tuple[str, ...]  # parts of model names, in lower case
    template: str  # with {prefix} and {suffix}
    stop: tuple[str, ...]

    def render(self, prefix: str, suffix: str) -> str:
        """The model's prompt. Braces in `prefix` and `suffix` have no special meaning."""
        texts = {"{prefix}": prefix, "{suffix}": suffix}
        return "".join(texts.get(part, part) for part in self._parts)

    @property
    def ignores_suffix(self) -> bool:
        """Whether the model was not trained to fill in the middle, and only continues the prefix."""
        return "{suffix}" not in self.template

    @property
    def tokens(self) -> list[str]:
        """The special tokens in the template."""
        return [part.strip() for part in self._parts if part.strip() not in ("", "{prefix}", "{suffix}")]

    @property
    def _parts(self) -> list[str]:
        return re.split(r"(\{prefix\}|\{suffix\})", self.template)


def read_families(path: Path) -> list[Family]:
    """The families in `path` (config/fim.yaml).

    Raises:
        BadSettings: the file cannot be read, or an entry is incomplete.
    """
    try:
        return [
            Family(name, tuple(entry["models"]), entry["template"], tuple(entry["stop"]))
            for name, entry in yaml.safe_load(path.read_text()).items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None


def family_of(model: str, families: Sequence[Family]) -> Family | None:
    """The family of the model with this name, or None."""
    return next((family for family in families if any(part in model.lower() for part in family.models)), None)
