"""Puts the router together: read the list in `build` from top to bottom, as a request does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from router.admission import Admission
from router.background import background
from router.chat_families import chat_family_of, read_chat_families
from router.error_budget import ErrorBudget
from router.fim import read_families
from router.keys import KeyRing, read_keys
from router.layers.admit import Admit
from router.layers.answer_errors import AnswerErrors
from router.layers.answer_locally import AnswerLocally
from router.layers.by_model import ByModel
from router.layers.cancel import Cancel
from router.layers.choose_replica import ChooseReplica
from router.layers.complete_response import CompleteResponse
from router.layers.count_input import CountInput
from router.layers.count_usage import CountUsage
from router.layers.explain_cache import ExplainCache
from router.layers.fall_back import FallBack
from router.layers.function_call import FunctionCall
from router.layers.give_way import GiveWay
from router.layers.http_only import HttpOnly
from router.layers.keep_alive import KeepAlive
from router.layers.rate_limit import RateLimit, of_client, of_model, storage
from router.layers.read_body import ReadBody
from router.layers.record import Record
from router.layers.report_usage import ReportUsage
from router.layers.steps import Steps
from router.litellm.callbacks import Callbacks
from router.litellm.config import read_config
from router.litellm.pass_through import PassThrough
from router.litellm.proxy import Proxy, check_with_litellm, collect_garbage, has_callbacks, load_app
from router.litellm.remote import Remote, supported_parameters, with_windows
from router.metrics import Metrics
from router.models import engine_device, models_list, published_names, read_models
from router.paths import RERANK
from router.prefix import read_rules
from router.progress import Progress
from router.promises import Promises
from router.quarantine import Quarantine
from router.readiness import Readiness
from router.relay import Relay
from router.replicas import Replicas
from router.request_log import RequestLog
from router.routes import own_routes
from router.sandbox import Sandbox
from router.settings import ROOT, Settings
from router.steps.adapt_for_provider import adapt_for_provider
from router.steps.adapt_request import adapt_request
from router.steps.check_key import check_key
from router.steps.check_parameters import Tolerated, check_parameters
from router.steps.check_ready import check_ready
from router.steps.check_route import check_route
from router.steps.check_structured import check_structured, compile_structured
from router.steps.fill_in_the_middle import RecogniseFim, render_fim
from router.steps.fit_prompt import FitPrompt
from router.steps.identify_client import identify_client
from router.steps.keep_prefix import KeepPrefix
from router.steps.resolve_model import resolve_model, resolve_path
from router.steps.set_priority import set_priority
from router.steps.set_thinking import SetThinking
from router.tokenizer import Tokenizer

_CONFIG = ROOT / "config"
_PREFLIGHT_SECONDS = 600


def browsers(origins: Sequence[str]) -> list[Middleware]:
    """What lets web pages of `origins` call the service; nothing if there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
            max_age=_PREFLIGHT_SECONDS,
        )
    ]


def check(settings: Settings) -> None:
    """Read everything that `build` reads, in a fraction of its time.

    Raises:
        BadSettings: as `build` does.
    """
    config = read_config(ROOT / settings.litellm_config)
    read_models(settings, config, read_families(_CONFIG / "fim.yaml"))
    read_keys(settings)
    Tolerated.read(_CONFIG / "parameters.yaml", engine_device(settings))
    read_chat_families(_CONFIG / "chat_families.yaml")
    read_rules(_CONFIG / "prefix.yaml")
    Promises(settings.profile, settings.cpu_precision)


def build(settings: Settings, stopping: asyncio.Event) -> ASGIApp:
    """The router's ASGI app. When `stopping` is set, it ends the requests that still run.

    Raises:
        BadSettings: the engine profile, the key file or another configuration file cannot be used.
    """
    families = read_families(_CONFIG / "fim.yaml")
    config = read_config(ROOT / settings.litellm_config)
    models = read_models(settings, config, families)
    ring = KeyRing(partial(read_keys, settings), ROOT / settings.keys_file if settings.keys_file else None)
    tolerated = Tolerated.read(_CONFIG / "parameters.yaml", engine_device(settings))
    chat_families = read_chat_families(_CONFIG / "chat_families.yaml")
    rules = read_rules(_CONFIG / "prefix.yaml")
    promises = Promises(settings.profile, settings.cpu_precision)
    # Only now: importing LiteLLM takes seconds, and bad settings should be reported at once.
    proxy = Proxy(load_app(), settings.litellm_master_key.get_secret_value())
    check_with_litellm(config)
    models = with_windows(models)
    engines = {alias: model for alias, model in models.items() if not model.remote}
    replicas_of_all = [replica for model in engines.values() for replica in model.replicas]
    names = published_names(models, config.aliases)
    chat_family = {alias: chat_family_of(model.name, chat_families) for alias, model in engines.items()}
    max_stop = settings.vllm_max_stop_strings

    readiness = Readiness(models)
    replicas = Replicas(readiness)
    progress = Progress(models, readiness, replicas, settings.stall_seconds)
    quarantine = Quarantine(readiness)
    sandbox = Sandbox()
    tokenizer = Tokenizer()
    fit_prompt = FitPrompt(models, tokenizer, settings.context_ratio, settings.truncate)
    indexing = {alias for alias, model in models.items() if model.serves(RERANK)}
    admission = Admission(
        {alias: model.slots for alias, model in models.items()}, settings.queue_max, indexing
    )
    log = RequestLog(settings.log_folder, settings.log_days, settings.log_total_gb * 1e9)
    budget = ErrorBudget(settings.log_folder)
    others = models.keys() - engines.keys()
    metrics = Metrics(admission, readiness, replicas, settings.log_folder, promises, budget, others)
    store = storage(settings.redis_url)
    callbacks = None
    if has_callbacks(config):
        redacted = config.settings("litellm_settings").get("turn_off_message_logging", True)
        callbacks = Callbacks(with_prompts=not redacted)
    pass_through = PassThrough(proxy, replicas_of_all, silent=callbacks is not None)

    def resize(alias: str) -> None:
        # Nobody is let in while no engine is ready; those who wait are told so.
        admission.resize(alias, models[alias].slots * max(1, len(readiness.ready(alias))))

    readiness.watch(resize)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            proxy.running(config, replicas_of_all),
            pass_through,
            tokenizer,
            readiness,
            progress,
            background(ring.watch, collect_garbage),
        ):
            yield
        log.close()
        budget.close()

    own = own_routes(readiness, models_list(names, models, config.hidden), metrics, lifespan)
    shared = [
        Middleware(HttpOnly, lifespan=own),
        *browsers(settings.cors_origins),
        Middleware(Record, metrics, log, models, callbacks.report if callbacks else None),
        Middleware(AnswerErrors),
        Middleware(
            Steps,
            check_route,
            partial(check_key, ring=ring, metrics_open_to=settings.metrics_open_to),
            partial(resolve_path, names=names),
        ),
        Middleware(ReportUsage, settings.log_folder),
        Middleware(AnswerLocally, own),
        Middleware(
            ReadBody,
            settings.max_body_mb * 1_000_000,
            max(model.window for model in models.values()),
        ),
        Middleware(
            Steps,
            partial(check_parameters, tolerated=tolerated, max_n=settings.max_n, max_stop=max_stop),
            partial(resolve_model, names=names, models=models),
            partial(identify_client, ring=ring),
            # Here, before it uses up the client's limits; and below, for each model that is asked.
            partial(check_ready, readiness=readiness, fallbacks=config.fallbacks),
        ),
        Middleware(RateLimit, store, partial(of_client, ring=ring), settings.limits_without_redis),
        Middleware(KeepAlive, settings.keepalive_seconds),
        Middleware(FallBack, readiness, config.fallbacks, config.context_window_fallbacks),
        Middleware(RateLimit, store, partial(of_model, models=models), settings.limits_without_redis),
    ]
    to_engine = [
        Middleware(
            Steps,
            check_structured,
            partial(adapt_request, models=engines),
            SetThinking(engines, chat_family, config.efforts),
            quarantine.refuse,
            RecogniseFim(engines, families, max_stop),
            partial(check_ready, readiness=readiness),
            KeepPrefix(chat_family, rules),
            set_priority,
        ),
        Middleware(Cancel, settings.request_timeout, stopping),
        Middleware(Steps, partial(compile_structured, models=engines, sandbox=sandbox)),
        Middleware(Admit, admission, readiness, settings.max_wait),
        Middleware(ChooseReplica, replicas, quarantine),
        Middleware(Steps, fit_prompt, render_fim),
        Middleware(CountInput, fit_prompt),
        Middleware(ExplainCache),
        Middleware(CountUsage),
        Middleware(CompleteResponse),
        Middleware(FunctionCall),
        Middleware(GiveWay, engines),
    ]
    to_provider = [
        Middleware(Steps, partial(adapt_for_provider, models=models, supported=supported_parameters(models))),
        Middleware(Cancel, settings.request_timeout, stopping),
        Middleware(Admit, admission, readiness, settings.max_wait),
        Middleware(CountUsage),
        Middleware(FunctionCall),
    ]
    remote = _around(Relay(Remote(proxy, models)), to_provider)
    return _around(Relay(pass_through), [*shared, Middleware(ByModel, models, remote), *to_engine])


def _around(app: ASGIApp, layers: Sequence[Middleware]) -> ASGIApp:
    """`app` inside `layers`, the outermost first."""
    for layer, positional, named in reversed(layers):
        app = layer(app, *positional, **named)
    return app
