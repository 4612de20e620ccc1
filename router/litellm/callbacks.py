"""LiteLLM's callbacks hear of the engines' answers too: model, client, tokens and latency.

LiteLLM itself reports the answers of remote models.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any

from router.exchange import Exchange

_PROVIDER = "hosted_vllm"
_log = logging.getLogger(__name__)


class Callbacks:
    """Reports requests once they have ended; LiteLLM must have been loaded. Prompts are left out unless
    `with_prompts`; answers always are.
    """

    def __init__(self, with_prompts: bool) -> None:
        self._with_prompts = with_prompts
        self._reports: set[asyncio.Task[None]] = set()

    def report(self, exchange: Exchange, status: int, ttft: float | None, seconds: float) -> None:
        """Report a request that an engine has answered (200) or not. `ttft` and `seconds` are its times."""
        task = asyncio.get_running_loop().create_task(self._report(exchange, status, ttft, seconds))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _report(self, exchange: Exchange, status: int, ttft: float | None, seconds: float) -> None:
        from litellm import ModelResponse, Usage
        from litellm.litellm_core_utils.litellm_logging import Logging

        ended = datetime.now()
        started = ended - timedelta(seconds=seconds)
        body = exchange.body
        prompt = body.get("messages") or body.get("input") or body.get("prompt")
        prompt = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        logging_obj = Logging(
            model=exchange.alias,
            messages=prompt if self._with_prompts else [],
            stream=False,  # the answer is not assembled from its chunks
            call_type="acompletion",
            start_time=started,
            litellm_call_id=exchange.request_id,
            function_id="",
        )
        metadata: dict[str, Any] = {
            "user_api_key_alias": exchange.key_name,
            "user_api_key_end_user_id": exchange.client,
            "model_group": exchange.alias,
        }
        logging_obj.update_environment_variables(
            model=exchange.alias,
            user=exchange.client,
            optional_params={"stream": exchange.stream},
            litellm_params={"metadata": metadata, "litellm_call_id": exchange.request_id},
            custom_llm_provider=_PROVIDER,
        )
        if ttft is not None:
            logging_obj.update_completion_start_time(started + timedelta(seconds=ttft))
        try:
            if status == 200:
                prompt_tokens, completion_tokens = (
                    exchange.prompt_tokens or 0,
                    exchange.completion_tokens or 0,
                )
                usage = Usage(
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                    total_tokens=prompt_tokens + completion_tokens,
                )
                answer = ModelResponse(id=exchange.request_id, model=exchange.alias, choices=[], usage=usage)
                await logging_obj.async_success_handler(answer, started, ended)
                await asyncio.to_thread(logging_obj.success_handler, answer, started, ended)
            else:
                error = RuntimeError(exchange.reason or f"status {status}")
                await logging_obj.async_failure_handler(error, "", started, ended)
                await asyncio.to_thread(logging_obj.failure_handler, error, "", started, ended)
        except Exception:
            _log.exception("LiteLLM's callbacks could not be told of request %s", exchange.request_id)
