"""Fill-in-the-middle: `prompt` and `suffix` become the prompt that the model was trained on."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from router.errors import invalid
from router.exchange import Exchange
from router.fim import Family
from router.models import Model
from router.paths import COMPLETIONS

_log = logging.getLogger(__name__)


class RecogniseFim:
    """Recognises autocompletions, and refuses a `suffix` that the model cannot use (400).

    Sets the exchange's `urgent` and `fim`. A prompt that already holds a family's special tokens is an
    autocompletion too, and is left as it is; and so is whatever a model for autocompletion is asked.
    """

    def __init__(self, models: Mapping[str, Model], families: Sequence[Family], max_stop: int) -> None:
        self._families = {alias: model.family for alias, model in models.items()}
        self._quick = {alias for alias, model in models.items() if model.mode == "completion"}
        self._tokens = [token for family in families for token in family.tokens]
        self._special = {token for family in families for token in (*family.tokens, *family.stop)}
        self._max_stop = max_stop
        for alias, family in self._families.items():
            if family and family.ignores_suffix and not family.predicts_edits:
                _log.warning(
                    "the model of '%s' does not fill in the middle: completions continue the prompt, "
                    "and their suffix is ignored (x-duoserve-suffix: ignored)",
                    alias,
                )

    def __call__(self, exchange: Exchange) -> None:
        exchange.urgent |= exchange.alias in self._quick
        if exchange.path != COMPLETIONS:
            return
        prompt, suffix = exchange.body["prompt"], exchange.body.get("suffix")
        family = self._families[exchange.alias]
        able = family is not None and not family.predicts_edits
        if suffix == "" and not able:
            del exchange.body["suffix"]  # nothing to fill in: a plain completion
        elif suffix is not None:
            self._prepare(exchange, family if family and able else self._refuse(exchange.alias), prompt)
        raw = isinstance(prompt, str) and any(token in prompt for token in self._tokens)
        exchange.urgent |= exchange.fim is not None or raw
        if raw and self._special.intersection(_texts(exchange.body.get("stop", []))):
            # As below: without this the engine would run past the client's own stops.
            exchange.body.setdefault("skip_special_tokens", False)

    def _refuse(self, alias: str) -> NoReturn:
        able = [
            f"'{other}'" for other, family in self._families.items() if family and not family.predicts_edits
        ]
        remedy = f"use {' or '.join(able)}" if able else "no other model here does"
        raise invalid("suffix", f"cannot be used: the model '{alias}' does not fill in the middle; {remedy}")

    def _prepare(self, exchange: Exchange, family: Family, prompt: Any) -> None:
        body = exchange.body
        if not isinstance(prompt, str):
            raise invalid("prompt", "must be one string when 'suffix' is given")
        if body.get("echo"):
            raise invalid("echo", "cannot be combined with 'suffix'")
        stop = list(dict.fromkeys([*family.stop, *_texts(body.get("stop", []))]))
        if len(stop) > self._max_stop:
            most = self._max_stop - len(family.stop)
            raise invalid("stop", f"has too many entries; with 'suffix' at most {most} are allowed")
        # The engine finds special tokens as stop strings only if they appear in the text.
        body |= {"stop": stop, "skip_special_tokens": False}
        exchange.fim = family
        if family.ignores_suffix and body["suffix"]:
            exchange.headers["x-duoserve-suffix"] = "ignored"


def _texts(stop: str | list[str]) -> list[str]:
    return [stop] if isinstance(stop, str) else stop


def render_fim(exchange: Exchange) -> None:
    """Replaces `prompt` and `suffix` by the model's own prompt."""
    if exchange.fim is not None:
        body = exchange.body
        body["prompt"] = exchange.fim.render(body["prompt"], body.pop("suffix"))
