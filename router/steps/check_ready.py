"""No waiting for a model that is loading or down."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from router.exchange import Exchange
from router.paths import COMPLETIONS
from router.readiness import Readiness, not_ready


def check_ready(
    exchange: Exchange,
    *,
    readiness: Readiness,
    fallbacks: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """503 with Retry-After at once if neither the model nor one of its `fallbacks` is ready. The other model
    is not affected.
    """
    status = readiness.status[exchange.alias]
    others = () if exchange.path == COMPLETIONS else fallbacks.get(exchange.alias, ())
    if status.state != "ready" and not any(map(readiness.is_ready, others)):
        raise not_ready(exchange.alias, status)
