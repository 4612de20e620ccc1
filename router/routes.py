"""Our own routes, as a small FastAPI app beside the inference layers."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from router.readiness import Readiness
from router.telemetry import Metrics

Running = Callable[[], AbstractAsyncContextManager[None]]


def own_routes(readiness: Readiness, models: dict[str, Any], metrics: Metrics, running: Running) -> FastAPI:
    """The app that answers /health, /ready, /metrics and /v1/models; `running` is entered while it serves."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running():
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive; says nothing of the engines."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """200 when at least one model serves."""
        content = readiness.as_json()
        return JSONResponse(content, 200 if content["status"] == "ready" else 503)

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The published models."""
        return models

    @app.get("/metrics")
    async def scrape() -> Response:
        """What Prometheus reads."""
        return Response(metrics.as_text(), media_type=CONTENT_TYPE_LATEST)

    return app
