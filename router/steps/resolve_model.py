"""Which model is meant."""

import difflib
from collections.abc import Mapping

from router.errors import ApiError, invalid
from router.exchange import Exchange
from router.models import Model
from router.paths import MODELS

# What LiteLLM's clients put before a model's name to say which API it has.
_PROVIDERS = ("openai", "anthropic", "hosted_vllm", "litellm_proxy", "text-completion-openai")
_LONGEST = 100  # characters of a name that does not exist; what is longer takes seconds to compare


def resolve_model(exchange: Exchange, *, names: Mapping[str, str], models: Mapping[str, Model]) -> None:
    """Sets `name`, `alias` and the body's `model`, which is the alias for the engine. Without a name, the
    first of `models` that serves the path is meant.

    Raises:
        ApiError: 404; as `find_name`. 400; the model is not for this path.
    """
    able = [alias for alias, model in models.items() if model.serves(exchange.path)]
    name = exchange.body.get("model") or (able or list(models))[0]
    exchange.name = find_name(name, names)
    exchange.alias = names[exchange.name]
    if exchange.alias not in able:
        others = f"use {' or '.join(map(repr, able))}" if able else "no model here does"
        raise invalid("model", f"is {exchange.alias!r}, which does not serve {exchange.path}; {others}")
    exchange.body["model"] = exchange.alias


def resolve_path(exchange: Exchange, *, names: Mapping[str, str]) -> None:
    """Sets `alias` where the path names a model.

    Raises:
        ApiError: 404; as `find_name`.
    """
    if exchange.path.startswith(f"{MODELS}/"):
        exchange.alias = names[find_name(exchange.path.removeprefix(f"{MODELS}/"), names)]


def find_name(name: str, names: Mapping[str, str]) -> str:
    """The one of `names` that is meant by `name`. Its case and a provider before it do not matter.

    Raises:
        ApiError: 404; there is no such name.
    """
    if name in names:
        return name
    known = {published.lower(): published for published in names}
    lower = name.lower()
    provider, _, rest = lower.partition("/")
    found = known.get(lower) or (known.get(rest) if provider in _PROVIDERS else None)
    if found is None:
        name = name[:_LONGEST]
        close = difflib.get_close_matches(name, names, 1, 0.6)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ApiError(
            404,
            f"The model '{name}' does not exist; the models are {', '.join(names)}.{hint}",
            reason="unknown_model",
            param="model",
            code="model_not_found",
        )
    return found
