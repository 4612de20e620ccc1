"""Another model for one that is not ready."""

from collections.abc import Mapping, Sequence

from router.exchange import Exchange
from router.paths import COMPLETIONS
from router.readiness import Readiness


def fall_back(exchange: Exchange, *, readiness: Readiness, fallbacks: Mapping[str, Sequence[str]]) -> None:
    """Sets `alias` to the first ready one of the model's fallbacks, where the model is not; a header says so.

    Text completions stay with their model: their prompt is written for it, special tokens included.
    """
    alias = exchange.alias
    if readiness.is_ready(alias) or exchange.path == COMPLETIONS:
        return
    ready = next((other for other in fallbacks.get(alias, ()) if readiness.is_ready(other)), None)
    if ready is not None:
        exchange.fallback_from, exchange.alias = alias, ready
        exchange.headers["x-duoserve-fallback"] = ready
