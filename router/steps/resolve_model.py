"""Which model is meant."""

import difflib
from collections.abc import Mapping

from router.errors import ApiError, invalid
from router.exchange import Exchange
from router.models import Model
from router.paths import MODELS

# What LiteLLM's clients put before a model's name to say which API it has.
_PROVIDERS = ("openai", "anthropic", "hosted_vllm", "litellm_proxy", "text-completion-openai")


def resolve_model(exchange: Exchange, *, names: Mapping[str, str], models: Mapping[str, Model]) -> None:
    """Sets `alias` and the body's `model`, which is the alias for the engine. Without a name the first of
    `models` that serves the path is meant.

    Raises:
        ApiError: 404; as `find_alias`. 400; the model is not for this path.
    """
    able = [alias for alias, model in models.items() if model.serves(exchange.path)]
    name = exchange.body.get("model") or (able or list(models))[0]
    exchange.alias = find_alias(name, names)
    if exchange.alias not in able:
        others = f"use {' or '.join(map(repr, able))}" if able else "no model here does"
        raise invalid("model", f"is {exchange.alias!r}, which does not serve {exchange.path}; {others}")
    exchange.body["model"] = exchange.alias


def resolve_path(exchange: Exchange, *, names: Mapping[str, str]) -> None:
    """Sets `alias` where the path names a model.

    Raises:
        ApiError: 404; as `find_alias`.
    """
    if exchange.path.startswith(f"{MODELS}/"):
        exchange.alias = find_alias(exchange.path.removeprefix(f"{MODELS}/"), names)


def find_alias(name: str, names: Mapping[str, str]) -> str:
    """The alias that `name` stands for. Its case and a provider before it do not matter.

    Raises:
        ApiError: 404; there is no such name.
    """
    known = {published.lower(): alias for published, alias in names.items()}
    lower = name.lower()
    provider, _, rest = lower.partition("/")
    alias = names.get(name) or known.get(lower) or (known.get(rest) if provider in _PROVIDERS else None)
    if alias is None:
        close = difflib.get_close_matches(name, names, 1, 0.6)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ApiError(
            404,
            f"The model '{name[:100]}' does not exist; the models are {', '.join(names)}.{hint}",
            reason="unknown_model",
            param="model",
            code="model_not_found",
        )
    return alias
