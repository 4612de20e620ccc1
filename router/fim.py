"""Fill-in-the-middle: `prompt` + `suffix` becomes the prompt that the model was trained on."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from starlette.types import ASGIApp, Receive, Scope, Send

from router.engines import Engine
from router.exchange import Exchange
from router.requests import invalid

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """How one family of models wants to be asked, from config/fim.yaml."""

    name: str
    models: tuple[str, ...]  # parts of model names, in lower case
    template: str  # with {prefix} and {suffix}
    stop: tuple[str, ...]

    def render(self, prefix: str, suffix: str) -> str:
        """The model's prompt. Braces in the texts mean nothing."""
        texts = {"{prefix}": prefix, "{suffix}": suffix}
        return "".join(texts.get(part, part) for part in self._parts)

    @property
    def ignores_suffix(self) -> bool:
        """Whether the model was not trained to fill in, and just continues the prefix."""
        return "{suffix}" not in self.template

    @property
    def tokens(self) -> list[str]:
        """The special tokens that the template is made of."""
        return [part.strip() for part in self._parts if part.strip() not in ("", "{prefix}", "{suffix}")]

    @property
    def _parts(self) -> list[str]:
        return re.split(r"(\{prefix\}|\{suffix\})", self.template)


def read_families(path: Path) -> list[Family]:
    """The families in config/fim.yaml.

    Raises:
        ValueError: the file cannot be read or an entry is incomplete.
    """
    try:
        entries: Mapping[str, Any] = yaml.safe_load(path.read_text())
        return [
            Family(name, tuple(entry["models"]), entry["template"], tuple(entry["stop"]))
            for name, entry in entries.items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used: {type(error).__name__} {error}") from None


def family_of(model: str, families: Sequence[Family]) -> Family | None:
    """The family whose prompts `model` understands, or None."""
    return next((family for family in families if any(part in model.lower() for part in family.models)), None)


class Fim:
    """Recognises autocompletions, which go ahead of chat, and refuses a `suffix` that no model could use.

    Raw prompts that hold a family's special tokens are the client's own work and stay as they are.
    """

    def __init__(
        self, app: ASGIApp, engines: Mapping[str, Engine], families: Sequence[Family], max_stop: int
    ) -> None:
        self._app = app
        self._families = {alias: family_of(engine.model, families) for alias, engine in engines.items()}
        self._tokens = [token for family in families for token in family.tokens]
        self._max_stop = max_stop
        for alias, family in self._families.items():
            if family and family.ignores_suffix:
                _log.warning(
                    "the model of '%s' does not fill in the middle: completions continue the prompt, "
                    "and their suffix is ignored (x-duoserve-suffix: ignored)",
                    alias,
                )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the exchange's `urgent` and `fim`. Raises ApiError 400."""
        exchange = Exchange.of(scope)
        if exchange.path == "/v1/completions":
            prompt, suffix = exchange.body["prompt"], exchange.body.get("suffix")
            family = self._families[exchange.alias]
            if suffix == "" and family is None:
                del exchange.body["suffix"]  # nothing to fill in: a plain completion
            elif suffix is not None:
                self._prepare(exchange, self._usable(exchange.alias), prompt)
            raw = isinstance(prompt, str) and any(token in prompt for token in self._tokens)
            exchange.urgent = exchange.fim is not None or raw
        await self._app(scope, receive, send)

    def _usable(self, alias: str) -> Family:
        family = self._families[alias]
        if family is None:
            able = [f"'{other}'" for other, found in self._families.items() if found]
            where = f"use {' or '.join(able)}" if able else "nor can any other model here"
            raise invalid(
                "suffix", f"cannot be used: the model '{alias}' does not fill in the middle; {where}"
            )
        return family

    def _prepare(self, exchange: Exchange, family: Family, prompt: Any) -> None:
        body = exchange.body
        if not isinstance(prompt, str):
            raise invalid("prompt", "must be one string when 'suffix' is given")
        if body.get("echo"):
            raise invalid("echo", "cannot be combined with 'suffix'")
        own = body.get("stop", [])
        stop = list(dict.fromkeys([*family.stop, *([own] if isinstance(own, str) else own)]))
        if len(stop) > self._max_stop:
            most = self._max_stop - len(family.stop)
            raise invalid("stop", f"has too many entries; with 'suffix' at most {most} are served")
        # Special tokens must appear in the text for the engine to find them as stop strings.
        body |= {"stop": stop, "skip_special_tokens": False}
        exchange.fim = family
        if family.ignores_suffix and body["suffix"]:
            exchange.headers["x-duoserve-suffix"] = "ignored"


class FimPrompt:
    """Puts the model's own prompt in the place of `prompt` and `suffix`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing of its own."""
        exchange = Exchange.of(scope)
        if exchange.fim is not None:
            body = exchange.body
            body["prompt"] = exchange.fim.render(body["prompt"], body.pop("suffix"))
        await self._app(scope, receive, send)
