"""The table of tools (config/ide.yaml), and the facts of the service that go into their configurations."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]
FEATURES = ("chat", "agent", "autocomplete")
NO_KEY = "YOUR-KEY"  # stands where the key would, when it is not known


class Failure(Exception):
    """Something that the user has to know; the text is one line with the remedy."""


@dataclass(frozen=True)
class Tool:
    """One entry of the table. See the head of config/ide.yaml for what the fields mean."""

    name: str
    title: str
    can: tuple[str, ...]
    key: Mapping[str, Any]
    language: str
    config: str
    steps: tuple[str, ...]
    limits: str
    seen: Mapping[str, Any]
    path: str | None
    format: str | None
    keep: tuple[str, ...]

    @property
    def variables(self) -> list[str]:
        """Environment variables that the tool reads the key from."""
        return [str(self.key[field]) for field in ("variable", "also") if field in self.key]

    @property
    def holds_key(self) -> bool:
        """Whether the key itself is part of the configuration."""
        return "@key@" in self.config

    def fill(self, facts: "Facts") -> str:
        """The configuration for the service that `facts` describe."""
        text = self.config
        for name, value in facts.placeholders().items():
            text = text.replace(f"@{name}@", value)
        return text


def read_tools(path: Path = ROOT / "config" / "ide.yaml") -> dict[str, Tool]:
    """The tools by name, in the table's order."""
    tools = {}
    for name, entry in yaml.safe_load(path.read_text()).items():
        file = entry.get("file", {})
        tools[name] = Tool(
            name=name,
            title=entry["title"],
            can=tuple(entry["can"]),
            key=entry["key"],
            language=entry["language"],
            config=entry["config"],
            steps=tuple(entry["steps"]),
            limits=entry["limits"],
            seen=entry["seen"],
            path=file.get("path"),
            format=file.get("format"),
            keep=tuple(file.get("keep", ())),
        )
    return tools


@dataclass(frozen=True)
class Facts:
    """What a configuration says of the service. `windows` and `prompts` are tokens by alias."""

    base: str
    key: str | None
    windows: Mapping[str, int]
    prompts: Mapping[str, int]
    fim_model: str

    def placeholders(self) -> dict[str, str]:
        """The values of the table's @placeholders@."""
        parts = urlsplit(self.base)
        return {
            "base": self.base,
            "scheme": parts.scheme,
            "host": parts.netloc,
            "key": self.key or NO_KEY,
            "fim_model": self.fim_model,
            "coder_window": str(self.windows["coder"]),
            "general_window": str(self.windows["general"]),
            "coder_prompt": str(self.prompts["coder"]),
            "general_prompt": str(self.prompts["general"]),
            "answer": str(min(self.windows[alias] - self.prompts[alias] for alias in self.windows)),
        }


def base_url(url: str | None, settings: Mapping[str, str]) -> str:
    """Address of the service, without /v1: `url`, or where the settings put the router on this machine.

    Raises:
        Failure: `url` is not an http or https address.
    """
    if url is None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings["BIND_ADDRESS"], settings["BIND_ADDRESS"])  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{settings['ROUTER_PORT']}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(f"--url {url} is not an address; write it like https://ai.example.com.")
    return url.rstrip("/").removesuffix("/v1")


def key_for(url: str | None, settings: Mapping[str, str]) -> str | None:
    """The key of the service, or None. This machine's own key is never used for a service elsewhere."""
    return os.environ.get("DUOSERVE_API_KEY") or (
        settings["LITELLM_MASTER_KEY"] or None if url is None else None
    )


def facts_of(url: str | None, settings: Mapping[str, str]) -> Facts:
    """What the running service says of itself; while it does not answer, what the engine profile says.

    Raises:
        Failure: `url` is not an address.
    """
    base, key = base_url(url, settings), key_for(url, settings)
    names, windows = _published(base, key) or _profile(settings["PROFILE"])
    ratio = float(settings["CONTEXT_RATIO"])
    prompts = {alias: int(ratio * window) for alias, window in windows.items()}
    families = yaml.safe_load((ROOT / "config" / "fim.yaml").read_text())
    parts = [part for family in families.values() for part in family["models"]]
    fim = next((name for name in names if any(part in name.lower() for part in parts)), "coder")
    return Facts(base, key, windows, prompts, fim)


def _published(base: str, key: str | None) -> tuple[list[str], dict[str, int]] | None:
    """The names of the coder and the windows, as /v1/models gives them."""
    request = urllib.request.Request(f"{base}/v1/models", headers={"authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:  # noqa: S310 - base_url checked the scheme
            models: list[Json] = json.load(answer)["data"]
        windows = {
            model["id"]: int(model["max_model_len"]) for model in models if model["id"] == model["root"]
        }
        return [m["id"] for m in models if m["root"] == "coder"], {
            a: windows[a] for a in ("coder", "general")
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _profile(profile: str) -> tuple[list[str], dict[str, int]]:
    engines = {
        alias: yaml.safe_load((ROOT / "config" / "engines" / profile / f"{alias}.yaml").read_text())
        for alias in ("coder", "general")
    }
    names = ["coder", str(engines["coder"]["model"]).rstrip("/").rpartition("/")[2].lower()]
    return names, {alias: int(engine["max-model-len"]) for alias, engine in engines.items()}
