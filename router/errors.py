"""What goes wrong: a request that is refused, an engine that fails, a setting that cannot be used."""

import ast
import contextlib
import logging
import re
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


# vLLM's lists of what pydantic found: its own, with one dict a line, and pydantic's.
_FOUND = re.compile(r"^  (\{'type': .*\})$", re.MULTILINE)
_DUMPED = re.compile(r"^(\S+)\n  (.+?) \[type=", re.MULTILINE)
# What vLLM adds for whoever runs it: where in its code, which flags, which objects.
_ASIDES = re.compile(
    r" ?\(parameter=.*\)$|\[\d\d:\d\d:\d\d\] \S+ |: \{'.*\}|[^.]* --[a-z][^.]*\.?|<path>:\d+: "
)
_LONGEST_MESSAGE = 500


def _plain(message: str, param: object) -> tuple[str, str | None]:
    """vLLM's message as a sentence about the request, and the parameter it is about."""
    given = param.removeprefix("body.") if isinstance(param, str) else None
    problems: list[tuple[str, str]] = [(where, what) for where, what in _DUMPED.findall(message)]
    for found in _FOUND.findall(message):
        with contextlib.suppress(ValueError, SyntaxError):
            problem = ast.literal_eval(found)
            problems.append((str(problem["loc"]), str(problem["msg"])))
    if not problems:
        text = _ASIDES.sub("", message).strip()[:_LONGEST_MESSAGE]
        if given and given.partition(".")[0] not in text:
            text = f"'{given}' is not valid: {text}"
        return text or "The engine cannot take this request.", given
    # Of a union's branches the one that got furthest into the request is the one that was meant.
    where, what = max(problems, key=lambda problem: problem[0].count("."))
    names = [name for name in where.removeprefix("body.").split(".") if not re.search("[A-Z(]", name)]
    place = ".".join(names) if names and not names[0].isdigit() else "messages"
    return f"'{place}' is not valid: {what[:1].lower()}{what[1:_LONGEST_MESSAGE]}.", place


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
        message, param = _plain(error["message"], error.get("param"))
        return ApiError(
            400 if status == 422 else status,
            message,
            reason="engine_refused",
            param=param,
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
