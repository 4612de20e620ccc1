"""What goes wrong: a request that is refused, an engine that fails, a setting that cannot be used."""

from collections.abc import Mapping


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


def engine_hangs(alias: str) -> ApiError:
    """503: the engine has stopped making tokens."""
    return ApiError(
        503,
        f"The engine of '{alias}' has stopped making tokens. Try again soon; GET /ready shows its state.",
        reason="engine_hangs",
        kind="service_unavailable",
        code="engine_hangs",
        headers={"retry-after": "5"},
    )
