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


def is_failure(status: int | None, reason: str | None) -> bool:
    """Whether a request with this status and reason, which was not served, failed through no fault of its
    client's. None or 0 stands for no status; a stream that broke off has 200.
    """
    return not status or status >= 500 or (status == 200 and bool(reason))


def invalid(param: str, problem: str, code: str = "invalid_value") -> ApiError:
    """400 that names the parameter. `problem` continues the sentence that its name begins."""
    return ApiError(400, f"'{param}' {problem}.", reason="bad_request", param=param, code=code)


def unavailable(code: str, message: str, retry_after: int, reason: str | None = None) -> ApiError:
    """503: the service cannot answer now, but may in `retry_after` seconds. `reason` is `code` by default."""
    return ApiError(
        503,
        message,
        reason=reason or code,
        kind="service_unavailable",
        code=code,
        headers={"retry-after": str(retry_after)},
    )


def engine_failed(alias: str) -> ApiError:
    """503: the engine died, or the connection to it broke."""
    text = f"The engine of '{alias}' failed to answer. Try again soon; GET /ready shows its state."
    return unavailable("engine_failed", text, 2)


def count_failed(alias: str) -> ApiError:
    """503: the engine did not count the tokens of a prompt. That is no sign that the prompt ended it."""
    text = f"The engine of '{alias}' did not count the prompt's tokens. Try again soon."
    return unavailable("engine_failed", text, 2, reason="count_failed")


def engine_hangs(alias: str) -> ApiError:
    """503: the engine has stopped making tokens."""
    text = f"The engine of '{alias}' has stopped making tokens. Try again soon; GET /ready shows its state."
    return unavailable("engine_hangs", text, 5)
