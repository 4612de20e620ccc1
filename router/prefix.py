"""Text in front of a prompt that changes from request to request, from config/prefix.yaml."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from router.errors import BadSettings

Json = dict[str, Any]
_TEXT_PARTS = ("text", "input_text")


@dataclass(frozen=True)
class Rule:
    """A kind of text that is taken out of where it stands: dropped, or moved to the end of the prompt."""

    name: str
    where: Literal["front", "user"]
    pattern: re.Pattern[str]
    moved: bool


def read_rules(path: Path) -> list[Rule]:
    """The rules in `path` (config/prefix.yaml).

    Raises:
        BadSettings: the file cannot be read, or an entry is incomplete.
    """
    try:
        table = yaml.safe_load(path.read_text())
        return [
            Rule(name, entry["where"], re.compile(f"^{entry['pattern']}", re.MULTILINE), kind == "moved")
            for kind in ("dropped", "moved")
            for name, entry in table[kind].items()
        ]
    except (OSError, yaml.YAMLError, re.error, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None


def reminder(text: str) -> str:
    """`text` in the form by which coding agents tell a model something in the middle of a conversation."""
    inner = text.strip()
    if inner.startswith("<system-reminder>") and inner.endswith("</system-reminder>"):
        return inner
    return f"<system-reminder>\n{inner}\n</system-reminder>"


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")


def edited(content: Any, edit: Callable[[str], str]) -> Any:
    """`content` with each of its texts replaced by what `edit` makes of it. Empty parts are left out."""
    if isinstance(content, str):
        return edit(content)
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
            text = edit(part["text"])
            if text or not part["text"]:
                parts.append(part if text == part["text"] else part | {"text": text})
        else:
            parts.append(part)
    return parts


def joined(content: Any, texts: Sequence[str], kind: str, *, first: bool = False) -> Any:
    """`content` with `texts` as its last texts, or its first ones. `kind` is the type of a new part."""
    if isinstance(content, list):
        parts = [{"type": kind, "text": text} for text in texts]
        return [*parts, *content] if first else [*content, *parts]
    return "\n\n".join(filter(None, (*texts, content) if first else (content, *texts)))
