"""No waiting for a model that is loading or down."""

from router.exchange import Exchange
from router.readiness import Readiness, not_ready


def check_ready(exchange: Exchange, *, readiness: Readiness) -> None:
    """503 with Retry-After at once if the model is not ready. The other model is not affected."""
    status = readiness.status[exchange.alias]
    if status.state != "ready":
        raise not_ready(exchange.alias, status)
