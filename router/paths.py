"""Only the routes that Duoserve serves exist; LiteLLM has dozens more, many of them open without a key."""

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError

# Path: method. What LiteLLM and vLLM serve beside these cannot be reached.
SERVED = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/responses": "POST",
    "/v1/messages": "POST",
    "/v1/messages/count_tokens": "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/ready": "GET",
    "/metrics": "GET",
}
OPEN = ("/health", "/ready")  # answered without a key
INFERENCE = tuple(path for path, method in SERVED.items() if method == "POST")


class Branch:
    """Inference requests take one way, our own routes and the server's start and stop the other."""

    def __init__(self, inference: ASGIApp, own: ASGIApp) -> None:
        self._inference = inference
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what the chosen app raises."""
        inference = scope["type"] == "http" and scope["path"] in INFERENCE
        await (self._inference if inference else self._own)(scope, receive, send)


class Routes:
    """404 for every path outside `SERVED`, 405 for a wrong method."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError 404 or 405."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        served = SERVED.get(path)
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
        await self._app(scope, receive, send)
