"""Which model a request means: the aliases `coder` and `general`, and names that clients have built in."""

import difflib
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from router.engines import Engine
from router.errors import ApiError
from router.exchange import Exchange


def published_names(engines: Mapping[str, Engine], extra: Mapping[str, str]) -> dict[str, str]:
    """Every model name that clients may use, with the alias it stands for.

    Beside the aliases themselves: the last part of each model's real name, in lower case, because
    fill-in-the-middle clients choose their prompt template by it; and `extra`, for tools with fixed names.
    """
    names = {alias: alias for alias in engines}
    for engine in engines.values():
        names.setdefault(engine.model.rstrip("/").rpartition("/")[2].lower(), engine.alias)
    return names | dict(extra)


def models_list(names: Mapping[str, str], engines: Mapping[str, Engine]) -> dict[str, Any]:
    """The answer of /v1/models, with vLLM's `max_model_len` (the context length in tokens)."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "duoserve",
                "root": alias,
                "max_model_len": engines[alias].window,
            }
            for name, alias in names.items()
        ],
    }


class Aliases:
    """404 for a model that is not published; the engine then sees its alias."""

    def __init__(self, app: ASGIApp, names: Mapping[str, str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the exchange's alias and the body's model. Raises ApiError 404."""
        exchange = Exchange.of(scope)
        asked: str = exchange.body["model"]
        alias = self._names.get(asked) or self._names.get(asked.lower())
        if alias is None:
            close = difflib.get_close_matches(asked, self._names, 1, 0.6)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ApiError(
                404,
                f"The model '{asked[:100]}' does not exist here; there are {', '.join(self._names)}.{hint}",
                reason="unknown_model",
                param="model",
                code="model_not_found",
            )
        exchange.alias = alias
        exchange.body["model"] = alias
        await self._app(scope, receive, send)
