"""Only what `paths.SERVED` lists exists."""

from router.errors import ApiError
from router.exchange import Exchange
from router.paths import SERVED, method_of


def check_route(exchange: Exchange) -> None:
    """404 for every other path, 405 for a wrong method."""
    path, method = exchange.path, exchange.method
    served = method_of(path)
    if served is None:
        raise ApiError(
            404,
            f"Duoserve does not serve {method} {path}. It serves {', '.join(sorted(SERVED))}.",
            reason="unknown_route",
            code="not_found",
        )
    if method not in (served, "HEAD" if served == "GET" else served):
        raise ApiError(
            405,
            f"{path} takes {served}, not {method}.",
            reason="wrong_method",
            code="method_not_allowed",
            headers={"allow": served},
        )
