"""The routes that the router answers itself: health, readiness, metrics and the list of models."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from router import paths
from router.metrics import Metrics
from router.readiness import Readiness

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def own_routes(readiness: Readiness, models: dict[str, Any], metrics: Metrics, lifespan: Lifespan) -> FastAPI:
    """The app of these routes. `models` is the response of /v1/models; `lifespan` is entered while the server
    runs.
    """
    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get(paths.HEALTH)
    async def health() -> dict[str, str]:
        """The process is alive; says nothing about the engines."""
        return {"status": "ok"}

    @app.get(paths.READY)
    async def ready() -> JSONResponse:
        """200 when at least one model is ready."""
        content = readiness.as_json()
        return JSONResponse(content, 200 if content["status"] == "ready" else 503)

    @app.get(paths.MODELS)
    async def list_models() -> dict[str, Any]:
        return models

    @app.get(paths.METRICS)
    async def scrape() -> Response:
        return Response(metrics.as_text(), media_type=CONTENT_TYPE_LATEST)

    return app
