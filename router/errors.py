"""What goes wrong: a request that is refused, an engine that fails, a setting that cannot be used."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson

_log = logging.getLogger(__name__)


class BadSettings(Exception):
    """A setting or a configuration file cannot be used. The text is one line that names it and the remedy."""


class ApiError(Exception):
    """What a client is told when its request is not served.

    `status`, `message`, `kind` (OpenAI's `type`), `param` and `code` are those of OpenAI's error object
    (https://platform.openai.com/docs/guides/error-codes). `reason` is one word for logs and metrics.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def invalid(param: str, problem: str, code: str = "invalid_value") -> ApiError:
    """400 that names the parameter. `problem` continues the sentence that its name begins."""
    return ApiError(400, f"'{param}' {problem}.", reason="bad_request", param=param, code=code)


def engine_failed(alias: str) -> ApiError:
    """503: the engine died, or the connection to it broke."""
    return ApiError(
        503,
        f"The engine of '{alias}' failed to answer. Try again soon; GET /ready shows its state.",
        reason="engine_failed",
        kind="service_unavailable",
        code="engine_failed",
        headers={"retry-after": "2"},
    )


def engine_refused(status: int, body: bytes, alias: str) -> ApiError:
    """The engine's error response as ours: its own words about the request, nothing about what is behind us.

    LiteLLM answers 500 where it cannot reach the engine; its words name the engine's address.
    """
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    error = content.get("error", content) if isinstance(content, dict) else None
    if status in (400, 404, 422) and isinstance(error, dict) and isinstance(error.get("message"), str):
        return ApiError(
            400 if status == 422 else status,
            error["message"],
            reason="engine_refused",
            param=error.get("param") if isinstance(error.get("param"), str) else None,
            code=error.get("code") if isinstance(error.get("code"), str) else None,
        )
    _log.warning("the engine of %s answered %d", alias, status)
    if status in (429, 503):
        return ApiError(
            503,
            f"The engine of '{alias}' is overloaded. Try again soon.",
            reason="engine_overloaded",
            kind="service_unavailable",
            code="engine_overloaded",
            headers={"retry-after": "2"},
        )
    return engine_failed(alias)
