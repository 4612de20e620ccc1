"""The routes that the router answers itself: health, readiness, metrics and the list of models."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from router import paths
from router.exchange import Exchange
from router.metrics import Metrics
from router.readiness import Readiness

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def own_routes(readiness: Readiness, models: dict[str, Any], metrics: Metrics, lifespan: Lifespan) -> FastAPI:
    """The app of these routes. `models` is the response of /v1/models; `lifespan` is entered while the server
    runs.
    """
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    get = partial(app.api_route, methods=["GET", "HEAD"])
    by_id = {model["id"].lower(): model for model in models["data"]}

    @get(paths.HEALTH)
    async def health() -> dict[str, str]:
        """The process is alive; says nothing about the engines."""
        return {"status": "ok"}

    @get(paths.READY)
    async def ready() -> JSONResponse:
        """200 when at least one model is ready."""
        content = readiness.as_json()
        return JSONResponse(content, 200 if content["status"] == "ready" else 503)

    @get(paths.MODELS)
    async def list_models() -> dict[str, Any]:
        return models

    @get(paths.MODELS + "/{name:path}")
    async def retrieve_model(name: str, request: Request) -> dict[str, Any]:
        """The entry of one model, which `resolve_model` has found."""
        entry: dict[str, Any] = by_id.get(name.lower()) or by_id[Exchange.of(request.scope).alias]
        return entry

    @get(paths.METRICS)
    async def scrape() -> Response:
        return Response(metrics.as_text(), media_type=CONTENT_TYPE_LATEST)

    return app
