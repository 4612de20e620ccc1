"""Our own routes, as a small FastAPI app beside the inference layers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from router.readiness import Readiness


def own_routes(readiness: Readiness, models: dict[str, Any], litellm: FastAPI) -> FastAPI:
    """The app that answers /health, /ready and /v1/models. LiteLLM's app starts and stops with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with litellm.router.lifespan_context(litellm), readiness:
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

    return app
