"""Which client a request counts for in the queue and in the limits."""

from starlette.types import ASGIApp, Receive, Scope, Send

from router.exchange import Exchange, header
from router.keys import KeyRing

_LONGEST = 64


class Clients:
    """Sets the exchange's client: the key's name when there are several keys, which nobody can borrow; else
    what the request says of itself (`user`, X-Client-Id); else its address.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing of its own."""
        exchange = Exchange.of(scope)
        exchange.client = exchange.key_name if len(self._ring.keys) > 1 else self._said(scope, exchange)
        await self._app(scope, receive, send)

    def _said(self, scope: Scope, exchange: Exchange) -> str:
        user = exchange.body.get("user")
        said = user if isinstance(user, str) and user else header(scope, b"x-client-id")
        address = scope["client"][0] if scope.get("client") else "unknown"
        return said[:_LONGEST] or address
