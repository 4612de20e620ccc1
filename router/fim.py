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
    template: str  # with {prefix} and {suffix}; empty where editors write all prompts themselves
    stop: tuple[str, ...]
    marks: tuple[str, ...] = ()  # special tokens by which such a prompt is known

    def render(self, prefix: str, suffix: str) -> str:
        """The model's prompt. Braces in `prefix` and `suffix` have no special meaning."""
        texts = {"{prefix}": prefix, "{suffix}": suffix}
        return "".join(texts.get(part, part) for part in self._parts)

    @property
    def ignores_suffix(self) -> bool:
        """Whether the model was not trained to fill in the middle, and only continues the prefix."""
        return "{suffix}" not in self.template

    @property
    def predicts_edits(self) -> bool:
        """Whether the model was trained for next-edit prediction, and takes no `suffix`."""
        return not self.template

    @property
    def tokens(self) -> list[str]:
        """The special tokens of its prompts."""
        parts = (part.strip() for part in self._parts)
        return [*(part for part in parts if part not in ("", "{prefix}", "{suffix}")), *self.marks]

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
            Family(
                name,
                tuple(entry["models"]),
                "" if "tokens" in entry else entry["template"],
                tuple(entry["stop"]),
                tuple(entry.get("tokens", ())),
            )
            for name, entry in yaml.safe_load(path.read_text()).items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None


def family_of(model: str, families: Sequence[Family]) -> Family | None:
    """The family of the model with this name, or None."""
    return next((family for family in families if any(part in model.lower() for part in family.models)), None)
