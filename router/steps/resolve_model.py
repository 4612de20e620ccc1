"""Which model is meant."""

import difflib
from collections.abc import Mapping

from router.errors import ApiError
from router.exchange import Exchange


def resolve_model(exchange: Exchange, *, names: Mapping[str, str]) -> None:
    """Sets `alias` and the body's `model`, which is the alias for the engine. 404 if no such name is in
    `names` (name: alias).
    """
    name: str = exchange.body["model"]
    alias = names.get(name) or names.get(name.lower())
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
    exchange.alias = alias
    exchange.body["model"] = alias
