"""A LiteLLM callback before all others: it takes out of their sight what LiteLLM's redaction leaves.

LiteLLM (`turn_off_message_logging`) redacts what callbacks usually read, and not the request as it came in
and as it went out, which every callback can read, too.
"""

from typing import Any

from litellm.integrations.custom_logger import CustomLogger

Json = dict[str, Any]


class Redact(CustomLogger):  # type: ignore[misc]  # LiteLLM's types are not followed
    """Leaves no prompt and no answer in what callbacks are given."""

    async def async_logging_hook(self, kwargs: Json, result: Any, call_type: str) -> tuple[Json, Any]:
        """Before the callbacks hear of a success."""
        return _redacted(kwargs), result

    def logging_hook(self, kwargs: Json, result: Any, call_type: str) -> tuple[Json, Any]:
        """The same, for callbacks that are not asynchronous."""
        return _redacted(kwargs), result

    async def async_log_failure_event(self, kwargs: Json, *_: Any) -> None:
        """Of failures this one hears first."""
        _redacted(kwargs)

    def log_failure_event(self, kwargs: Json, *_: Any) -> None:
        """The same, for callbacks that are not asynchronous."""
        _redacted(kwargs)


def _redacted(kwargs: Json) -> Json:
    """`kwargs`, changed in place, as each callback gets the same."""
    for name in ("additional_args", "original_response"):
        kwargs.pop(name, None)
    parameters = kwargs.get("litellm_params")
    request = parameters.get("proxy_server_request") if isinstance(parameters, dict) else None
    if isinstance(parameters, dict) and isinstance(request, dict):
        kwargs["litellm_params"] = parameters | {"proxy_server_request": request | {"body": {}}}
    return kwargs


redact = Redact()
