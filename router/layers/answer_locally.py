"""Requests that need no model."""

from starlette.types import ASGIApp, Receive, Scope, Send

from router.paths import INFERENCE


class AnswerLocally:
    """Lets only inference requests pass; `own` answers all others."""

    def __init__(self, app: ASGIApp, own: ASGIApp) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app if scope["path"] in INFERENCE else self._own)(scope, receive, send)
