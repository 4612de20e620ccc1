"""The response of /v1/responses/input_tokens, which vLLM does not have."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from router.exchange import Exchange
from router.paths import INPUT_TOKENS
from router.steps.fit_prompt import FitPrompt


class CountInput:
    """Answers with the tokens of the prompt; lets every other request pass."""

    def __init__(self, app: ASGIApp, fit_prompt: FitPrompt) -> None:
        self._app = app
        self._fit_prompt = fit_prompt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        app = self._app
        if exchange.path == INPUT_TOKENS:
            tokens = await self._fit_prompt.input_tokens(exchange)
            app = JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})
        await app(scope, receive, send)
