"""Which client a request belongs to, in the queue and in the rate limits."""

from router.exchange import Exchange
from router.keys import KeyRing

_LONGEST = 64


def identify_client(exchange: Exchange, *, ring: KeyRing) -> None:
    """Sets `client`: the name of the key if there are several keys, since a name cannot be borrowed; else
    the `user` or X-Client-Id that the request gives; else its address.

    Sets `group`, too: the name of the key, or the address. Who varies the name does not get more turns.
    """
    if len(ring.keys) > 1:
        exchange.client = exchange.group = exchange.key_name
        return
    exchange.group = exchange.address or "unknown"
    user = exchange.body.get("user")
    given = user if isinstance(user, str) and user else exchange.request_headers.get("x-client-id", "")
    exchange.client = given[:_LONGEST] or exchange.address or "unknown"
