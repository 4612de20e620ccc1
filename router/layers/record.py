"""The outcome of every request: one line in the log, and the metrics. Never prompts, answers or keys."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange
from router.metrics import Metrics
from router.models import Model
from router.paths import INFERENCE
from router.request_log import RequestLog
from router.streams import Content

_LONGEST_ID = 128


# Hears of an engine's answer: the exchange, the status, and seconds to its first token and to its end.
Report = Callable[[Exchange, int, float | None, float], None]


class Record:
    """Makes the exchange of each request, watches its response, and records the outcome. `report` hears of
    those that engines answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: RequestLog,
        models: Mapping[str, Model],
        report: Report | None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._models = models
        self._tell = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.new(scope)
        status = 0
        first = last = 0.0
        content = Content(exchange.path)

        async def watching(message: Message) -> None:
            nonlocal status, first, last
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message.get("body"):
                last = time.monotonic()
                if not first and content.begins_in(message["body"]):
                    first = last
            await send(message)

        try:
            await self._app({**scope, "path": exchange.path, "duoserve": exchange}, receive, watching)
        except asyncio.CancelledError:
            exchange.aborted = True
            raise
        finally:
            self._record(exchange, status, first, last)

    def _record(self, exchange: Exchange, status: int, first: float, last: float) -> None:
        seconds = time.monotonic() - exchange.started
        ttft = itl = None
        if exchange.stream and status == 200 and first:
            ttft = first - exchange.started
            if exchange.completion_tokens and exchange.completion_tokens > 1:
                itl = (last - first) / (exchange.completion_tokens - 1)
        self._metrics.count(exchange, status, ttft, itl, seconds)
        if exchange.path not in INFERENCE:
            return
        model = self._models.get(exchange.alias)
        if self._tell and model and not model.remote and status:
            self._tell(exchange, status, ttft, seconds)
        self._log.write(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": exchange.request_id,
                "client_request_id": exchange.request_headers.get("x-request-id", "")[:_LONGEST_ID] or None,
                "client": exchange.client or None,
                "tool": exchange.tool,
                "key": exchange.key_name or None,
                "alias": exchange.alias or None,
                "fallback_from": exchange.fallback_from or None,
                "provider": (model.provider or None) if model else None,
                "engine": exchange.replica.number if exchange.replica else None,
                "path": exchange.path,
                "priority": exchange.priority.name.lower(),
                "stream": exchange.stream,
                "status": status or None,
                "queue_wait_ms": _ms(exchange.queue_wait),
                "queue_position": exchange.queue_position,
                "in_flight": exchange.in_flight,
                "gave_way_ms": _ms(exchange.gave_way),
                "ttft_ms": _ms(ttft),
                "itl_ms": _ms(itl),
                "total_ms": _ms(seconds),
                "prompt_tokens": exchange.prompt_tokens,
                "completion_tokens": exchange.completion_tokens,
                "cached_tokens": exchange.cached_tokens,
                "cache": str(exchange.loss) if exchange.loss else None,
                "truncated_messages": exchange.truncated_messages,
                "truncated_tokens": exchange.truncated_tokens,
                "error": exchange.reason or None,
                "aborted": exchange.aborted,
            }
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
