"""Puts the layers together. A request meets them in the order in which they are read here, top to bottom."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from router.aliases import Aliases, models_list, published_names
from router.body import Body
from router.edge import Edge
from router.keys import Keys
from router.lifeline import Lifeline
from router.readiness import Readiness, ReadyOnly
from router.relay import Relay
from router.routes import Branch, Routes
from router.service import own_routes
from router.settings import Settings


def build(settings: Settings, litellm: FastAPI) -> ASGIApp:
    """The router's ASGI app around LiteLLM's (`litellm`, a FastAPI app configured by config/litellm.yaml).

    Raises:
        BadSettings: the engine profile cannot be read.
    """
    engines = settings.engines()
    names = published_names(engines, settings.model_aliases)
    readiness = Readiness(engines)
    key = settings.litellm_master_key.get_secret_value()

    # Innermost first: each line wraps the one above it.
    app: ASGIApp = Relay(litellm, key)
    app = Lifeline(app, settings.request_timeout)
    app = ReadyOnly(app, readiness)
    app = Aliases(app, names)
    app = Body(app, settings.max_body_mb * 1_000_000)
    app = Branch(inference=app, own=own_routes(readiness, models_list(names, engines), litellm))
    app = Keys(app, {"master": key})
    app = Routes(app)
    return Edge(app)
