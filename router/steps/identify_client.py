"""Which client a request belongs to, in the queue and in the rate limits."""

from router.exchange import Exchange
from router.keys import KeyRing

_LONGEST = 64


def identify_client(exchange: Exchange, *, ring: KeyRing) -> None:
    """Sets `client`: the name of the key if there are several keys, since a name cannot be borrowed; else
    the `user` or X-Client-Id that the request gives; else its address.
    """
    if len(ring.keys) > 1:
        exchange.client = exchange.key_name
        return
    user = exchange.body.get("user")
    given = user if isinstance(user, str) and user else exchange.request_headers.get("x-client-id", "")
    exchange.client = given[:_LONGEST] or exchange.address or "unknown"
