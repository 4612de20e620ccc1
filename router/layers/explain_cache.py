"""Why a turn of a conversation is not in the engine's prefix cache."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.exchange import Exchange
from router.paths import CONVERSATIONS
from router.recent_prompts import Prompt, RecentPrompts, expected_loss, true_loss

_HEADER = "x-duoserve-cache"


class ExplainCache:
    """Says in `x-duoserve-cache` what a turn reads again that the turn before it had read, and why; sets the
    exchange's `loss` for the log and the metrics.

    A stream's header goes before the engine has counted, so it has the router's own estimate; everywhere else
    are the engine's figures.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._recent = RecentPrompts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        if exchange.path not in CONVERSATIONS:
            await self._app(scope, receive, send)
            return
        key = (exchange.client, exchange.alias)
        prompt = Prompt.of(exchange.body, exchange.truncated_messages, exchange.chosen.number)
        before = self._recent.before(key, prompt)
        expected = exchange.loss = expected_loss(before, prompt) if before else None
        held: Message | None = None

        def compare() -> None:
            if before and exchange.prompt_tokens is not None and exchange.cached_tokens is not None:
                exchange.loss = true_loss(before, expected, exchange.cached_tokens, exchange.prompt_tokens)

        async def explaining(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and not exchange.stream:
                held = message  # until the usage is there, which is in the same breath
                return
            if held or message["type"] == "http.response.start":
                compare()
                if exchange.loss:
                    exchange.headers[_HEADER] = str(exchange.loss)
            if held:
                start, held = held, None
                await send(start)
            await send(message)

        try:
            await self._app(scope, receive, explaining)
        finally:
            compare()
            if exchange.prompt_tokens:
                self._recent.remember(key, prompt, exchange.prompt_tokens, before)
