"""The engine that answers."""

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.models import Replica
from router.paths import COUNTING
from router.quarantine import Quarantine
from router.replicas import Replicas


class ChooseReplica:
    """Sets the exchange's `replica`: the least busy engine of the model; 503 if none is ready."""

    def __init__(self, app: ASGIApp, replicas: Replicas, quarantine: Quarantine) -> None:
        self._app = app
        self._replicas = replicas
        self._quarantine = quarantine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        async with self._replicas.lease(exchange) as replica:
            exchange.replica = replica
            exchange.body["model"] = replica.served
            try:
                await self._app(scope, receive, send)
            except ApiError as error:
                exchange.reason = error.reason
                raise
            finally:
                if exchange.abandoned.is_set():
                    self._quarantine.failed(exchange, replica)
                elif exchange.reason == "engine_failed":
                    if exchange.path not in COUNTING:
                        self._quarantine.failed(exchange, replica)
                    self._suspend(replica)
            if not exchange.reason and not exchange.abandoned.is_set():
                self._quarantine.served(exchange)

    def _suspend(self, replica: Replica) -> None:
        # A failing engine is soon the least busy, and may accept connections for a while. It gets no more
        # requests until it has passed a health check, unless it is the last one.
        readiness = self._replicas.readiness
        if readiness.ready(replica.alias) != [replica]:
            readiness.observe(replica, False, "the engine broke off an answer")
