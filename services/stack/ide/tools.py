"""The table of tools (config/ide.yaml), and the facts about the service that their configurations need."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from services.stack.client import client
from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.settings import KEY, Settings

FEATURES = ("chat", "agent", "autocomplete")
NO_KEY = "YOUR-KEY"  # in place of a key that is not known
# Lines that are only for a service that has this.
_OPTIONAL = re.compile(r"^ *@if (\w+)@\n(.*?)^ *@end@\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Tool:
    """One entry of the table; the top of config/ide.yaml explains the fields."""

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
        """The environment variables from which the tool reads the key."""
        return [str(self.key[field]) for field in ("variable", "also") if field in self.key]

    @property
    def holds_key(self) -> bool:
        """Whether the configuration contains the key itself."""
        return "@key@" in self.config


def read_tools(path: Path = ROOT / "config" / "ide.yaml") -> dict[str, Tool]:
    """The tools by name, in the order of the table."""
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
    """What a configuration says about the service.

    Attributes:
        coder: the model for code, the first one to chat with.
        general: the one for all else, the second; `coder` if there is only one.
        windows: the contexts of these two, in tokens.
        prompts: the share of them that a prompt may fill.
        fim_model: the name by which tools choose their fill-in-the-middle prompt, of the model for
            autocompletion or of `coder`.
        embedding: the model for embeddings; empty if there is none.
        embedding_window: the tokens that it reads of a text.
        embedding_size: the numbers in its vectors; 0 if that is not known.
    """

    base: str
    key: str | None
    coder: str
    general: str
    windows: Mapping[str, int]
    prompts: Mapping[str, int]
    fim_model: str
    embedding: str = ""
    embedding_window: int = 0
    embedding_size: int = 0

    def fill(self, text: str) -> str:
        """`text` with these facts in place of its @placeholders@, and without what the service lacks."""
        given = self.placeholders()
        text = _OPTIONAL.sub(lambda found: found[2] if given[found[1]] else "", text)
        for name, value in given.items():
            text = text.replace(f"@{name}@", value)
        return text

    def placeholders(self) -> dict[str, str]:
        """The values of the @placeholders@ in the table."""
        parts = urlsplit(self.base)
        return {
            "base": self.base,
            "scheme": parts.scheme,
            "host": parts.netloc,
            "key": self.key or NO_KEY,
            "coder": self.coder,
            "general": self.general,
            "fim_model": self.fim_model,
            "embedding": self.embedding,
            "embedding_window": str(self.embedding_window),
            "embedding_size": str(self.embedding_size or ""),
            "coder_window": str(self.windows[self.coder]),
            "general_window": str(self.windows[self.general]),
            "coder_prompt": str(self.prompts[self.coder]),
            "general_prompt": str(self.prompts[self.general]),
            "answer": str(min(self.windows[alias] - self.prompts[alias] for alias in self.windows)),
        }


def base_url(url: str | None, settings: Mapping[str, str]) -> str:
    """The service's address without /v1: `url`, or that of the router in `settings`.

    Raises:
        Failure: `url` is not an http or https address.
    """
    if url is None:
        return settings["ROUTER_URL"]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(f"--url {url} is not an address such as https://ai.example.com.")
    return url.rstrip("/").removesuffix("/v1")


def key_for(url: str | None, settings: Mapping[str, str]) -> str | None:
    """The service's key, or None if it is not known. The key in `settings` is never sent to another `url`."""
    return os.environ.get("DUOSERVE_API_KEY") or (settings[KEY] or None if url is None else None)


def facts_of(url: str | None, settings: Settings) -> Facts:
    """The facts that the running service publishes or, if it does not answer, those of the profile.

    Raises:
        Failure: `url` is not an address.
    """
    variables = settings.variables
    base, key = base_url(url, variables), key_for(url, variables)
    listed = _published(base, key) or _profile(settings)
    chat = [model for model in listed if model.mode == "chat"] or listed
    coder, general = (chat * 2)[:2]
    ratio = float(variables["CONTEXT_RATIO"])
    windows = {model.name: model.window for model in (coder, general)}
    prompts = {name: int(ratio * window) for name, window in windows.items()}
    fim = next((model for model in listed if model.mode == "completion"), coder)
    embedding = next(
        (model for model in listed if model.mode == "embedding"), Listed("", "embedding", 0, "", 0)
    )
    return Facts(
        base,
        key,
        coder.name,
        general.name,
        windows,
        prompts,
        fim.real_name,
        embedding.name,
        embedding.window,
        embedding.vector_size,
    )


@dataclass(frozen=True)
class Listed:
    """A model of the service, what it is for, its context in tokens, the name by which tools know it, and the
    size of its vectors; 0 if it makes none, or that is not known.
    """

    name: str
    mode: str
    window: int
    real_name: str
    vector_size: int


def _published(base: str, key: str | None) -> list[Listed] | None:
    """The models in /v1/models; None if it does not answer."""
    try:
        with client(base, headers={"authorization": f"Bearer {key}"}, timeout=3) as asked:
            answer = asked.get(f"{base}/v1/models")
        models: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
        # The real name comes first after the alias: tools choose their fill-in-the-middle tokens by it.
        real = {model["root"]: model["id"] for model in reversed(models) if model["id"] != model["root"]}
        return [
            Listed(
                model["id"],
                model.get("mode", "chat"),
                int(model["max_model_len"]),
                real.get(model["id"], model["id"]),
                int(model.get("output_vector_size") or 0),
            )
            for model in models
            if model["id"] == model["root"]
        ] or None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _profile(settings: Settings) -> list[Listed]:
    """The same from the profile."""
    found = {}
    for engine in settings.engines:
        values = settings.values(engine.kind)
        real_name = str(values["model"]).rstrip("/").rpartition("/")[2].lower()
        window = int(values["max-model-len"])
        sizes = (values.get("hf-overrides") or {}).get("matryoshka_dimensions") or [0]
        found[engine.alias] = Listed(
            engine.alias, settings.modes[engine.alias], window, real_name, max(sizes)
        )
    return list(found.values())
