"""Puts the layers together. Read `build` from the bottom up: a request meets `Record` first and `Relay`
last.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp

from router.admission import Admission, Admit
from router.aliases import Aliases, models_list, published_names
from router.body import Body, Tolerated
from router.clients import Clients
from router.edge import Edge
from router.fim import Fim, FimPrompt, read_families
from router.keys import KeyRing, Keys
from router.lifeline import Lifeline, Shutdown
from router.limits import Limits, storage
from router.logs import RequestLog, sweep_forever
from router.prompt import Prompt
from router.readiness import Readiness, ReadyOnly
from router.relay import Relay
from router.replicas import Choose, Replicas
from router.routes import Branch, Routes
from router.service import own_routes
from router.settings import ROOT, Settings
from router.telemetry import Metrics, Record
from router.tokenizer import Tokenizer
from router.usage import Usage


def build(settings: Settings, litellm: FastAPI, shutdown: Shutdown) -> ASGIApp:
    """The router's ASGI app around LiteLLM's, which is configured by config/litellm.yaml.

    Raises:
        BadSettings: the engine profile or the keys' file cannot be read.
    """
    engines = settings.engines()
    keys = KeyRing(settings.keys, ROOT / settings.keys_file if settings.keys_file else None)
    names = published_names(engines, settings.model_aliases)
    families = read_families(ROOT / "config" / "fim.yaml")
    tolerated = Tolerated.read(ROOT / "config" / "parameters.yaml", Path(settings.profile).name)
    master_key = settings.litellm_master_key.get_secret_value()

    readiness = Readiness(engines)
    replicas = Replicas(readiness)
    tokenizer = Tokenizer()
    admission = Admission({alias: engine.slots for alias, engine in engines.items()}, settings.queue_max)
    log = RequestLog(settings.log_folder)
    metrics = Metrics(admission, readiness, replicas, settings.log_folder)

    def resize(alias: str) -> None:
        # Nobody is let in while none serves; who waits then is told so.
        admission.resize(alias, engines[alias].slots * max(1, len(readiness.ready(alias))))

    readiness.watch(resize)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        keep = (settings.log_folder, settings.log_days, settings.log_total_gb * 1e9)
        background = [asyncio.create_task(sweep_forever(*keep)), asyncio.create_task(keys.watch())]
        async with litellm.router.lifespan_context(litellm), tokenizer, readiness:
            relay.open(litellm)
            await relay.warm_up()
            yield
        for task in background:
            task.cancel()
        log.close()

    relay = Relay(master_key)
    app: ASGIApp = Usage(relay)
    app = FimPrompt(app)
    app = Prompt(app, engines, tokenizer, settings.context_ratio, settings.truncate)
    app = Choose(app, replicas)
    app = Admit(app, admission, readiness, settings.max_wait)
    app = Lifeline(app, settings.request_timeout, shutdown)
    app = Limits(
        app,
        storage(settings.redis_url),
        keys,
        settings.limits_without_redis,
    )
    app = Clients(app, keys)
    app = ReadyOnly(app, readiness)
    app = Fim(app, engines, families, settings.vllm_max_stop_strings)
    app = Aliases(app, names)
    app = Body(
        app, settings.max_body_mb * 1_000_000, settings.max_n, settings.vllm_max_stop_strings, tolerated
    )
    app = Branch(app, own_routes(readiness, models_list(names, engines), metrics, running))
    app = Keys(app, keys, settings.metrics_open_to)
    app = Routes(app)
    app = Edge(app)
    return Record(app, metrics, log)
