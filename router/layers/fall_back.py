"""Another model for one that does not answer, or whose context is too short."""

from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.paths import COMPLETIONS
from router.readiness import Readiness

# The errors, by their reasons, that another model may not have.
_FAILED = frozenset(
    (
        "not_ready",
        "engine_failed",
        "count_failed",
        "engine_hangs",
        "engine_overloaded",
        "provider_failed",
        "provider_credentials",
        "provider_limit",
        "model_limit",
    )
)
_TOO_LONG = "context_length"


class FallBack:
    """Asks the model's `fallbacks` one after the other where it fails before its answer begins, and its
    `context_window_fallbacks` where the prompt does not fit. A header says which model answered.

    Raises the error of the model that was meant if the others fail, too. Text completions stay with their
    model: their prompt is written for it, special tokens included.
    """

    def __init__(
        self,
        app: ASGIApp,
        readiness: Readiness,
        fallbacks: Mapping[str, Sequence[str]],
        context_window_fallbacks: Mapping[str, Sequence[str]],
    ) -> None:
        self._app = app
        self._readiness = readiness
        self._fallbacks = fallbacks
        self._context_window_fallbacks = context_window_fallbacks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        meant = exchange.alias
        others, wider = (
            self._ready(self._fallbacks, meant),
            self._ready(self._context_window_fallbacks, meant),
        )
        if exchange.path == COMPLETIONS or not (others or wider):
            await self._app(scope, receive, send)
            return
        exchange.wider = bool(wider)
        restore = exchange.checkpoint()
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        first: ApiError | None = None
        left = [meant]
        while left:
            alias = left.pop(0)
            if alias != meant:
                restore()
                exchange.alias = exchange.body["model"] = alias
                exchange.fallback_from, exchange.wider = meant, False
                exchange.headers["x-duoserve-fallback"] = alias
            try:
                await self._app(scope, receive, sending)
                return
            except ApiError as error:
                if started or not (error.reason in _FAILED or error.reason == _TOO_LONG):
                    raise
                if first is None:
                    first, left = error, wider if error.reason == _TOO_LONG else others
        restore()
        raise first or AssertionError

    def _ready(self, table: Mapping[str, Sequence[str]], alias: str) -> list[str]:
        return [other for other in table.get(alias, ()) if other != alias and self._readiness.is_ready(other)]
