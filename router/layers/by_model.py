"""Two ways: through an engine's slots and context, or through LiteLLM to another service."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from router.exchange import Exchange
from router.models import Model


class ByModel:
    """Hands requests for remote models to `remote`, and all others to the inner app."""

    def __init__(self, app: ASGIApp, models: Mapping[str, Model], remote: ASGIApp) -> None:
        self._app = app
        self._models = models
        self._remote = remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        remote = self._models[Exchange.of(scope).alias].remote
        await (self._remote if remote else self._app)(scope, receive, send)
