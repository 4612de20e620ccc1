"""What an engine says when it does not serve a request, as a sentence about the request."""

import ast
import contextlib
import logging
import re
from collections.abc import Collection, Iterable
from typing import Any

import orjson

from router.errors import ApiError, engine_failed, unavailable

_log = logging.getLogger(__name__)
# vLLM's lists of what pydantic found: its own, with one dict a line, and pydantic's.
_FOUND = re.compile(r"^  (\{'type': .*\})$", re.MULTILINE)
_DUMPED = re.compile(r"^(\S+)\n  (.+?) \[type=(\w+)", re.MULTILINE)
# What vLLM adds for whoever runs it: where in its code, which flags and variables, which objects.
_ASIDES = re.compile(
    r" ?\(parameter=.*\)$|\[\d\d:\d\d:\d\d\] \S+ |: \{'.*\}"
    r"|[^.]*(?: --[a-z]|\bVLLM_[A-Z])[^.]*\.?|<path>:\d+: ",
    re.DOTALL,
)
# How it names the parameter, if it does: at the end of the sentence, or at its start.
_NAMED = (re.compile(r"\(parameter=(\w+)"), re.compile(r"^[`']?([a-z]+(?:_[a-z]+)*)\b"))
# What an answer is constrained with.
_CONSTRAINTS = ("structured_outputs", "response_format", "text", "output_config", "tools")
# All that vLLM says of an answer that came to a point where its grammar allows none of the model's tokens.
# Other failures of an engine have other words.
_DEAD_END = "Internal server error"
_CUT_DEAD_END = "'message': 'In..."  # in the Messages API's error event
# Which parameters a sentence without a name is about.
_ABOUT = (
    (
        re.compile(r"json schema|regex|grammar|structural_tag|^Choice |structured outputs", re.IGNORECASE),
        _CONSTRAINTS,
    ),
    (re.compile(r"multimodal|content part|conversation"), ("messages", "input")),
    (re.compile(r"[Mm]atryoshka"), ("dimensions",)),
    (re.compile(r"prompt|Token id"), ("prompt", "input")),
    (re.compile(r"tools? "), ("tool_choice",)),
)
_REWORDED = (
    (re.compile(r"(\S+) is not a multimodal model"), r"the model '\1' reads text only"),
    # Clients that see "not supported" and the parameter's name go on without it.
    (
        re.compile(r".*only supports Matryoshka dimensions \[(\d+)\], got.*"),
        r"not supported: the vectors of this model have \1 numbers",
    ),
    (
        re.compile(r".*only supports Matryoshka dimensions \[(.+)\], got.*"),
        r"not supported: the vectors of this model have one of \1 numbers",
    ),
    (
        re.compile(r".*does not support [Mm]atryoshka representation.*"),
        "not supported: the vectors of this model have one size",
    ),
    (re.compile(r"Cannot apply chat template to an empty conversation\..*"), "there is no text in it"),
)
_LONGEST_MESSAGE = 500
# What is read of a message, which may quote the request: of a list of faults, and of a sentence.
_LONGEST_LIST, _LONGEST_SENTENCE = 100_000, 2000
_DATA = re.compile(rb"^data: (\{.*\})$", re.MULTILINE)
# The status in the Messages API's error event, which quotes the chat API's.
_QUOTED_STATUS = re.compile(r"'code': (\d\d\d)\b")


def engine_refused(status: int, body: bytes, alias: str, sent: Collection[str]) -> ApiError:
    """The engine's error response as ours: its words about the request, nothing about what is behind us.

    `sent` are the parameters of the request. LiteLLM answers 500 where it cannot reach the engine; its words
    name the engine's address.
    """
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    error = content.get("error", content) if isinstance(content, dict) else None
    if status in (400, 404, 422, 501) and isinstance(error, dict) and isinstance(error.get("message"), str):
        message, param = _plain(error["message"], error.get("param"), sent)
        return ApiError(
            404 if status == 404 else 400,
            message,
            reason="engine_refused",
            param=param,
            code=error.get("code") if isinstance(error.get("code"), str) else None,
        )
    constraint = next((name for name in _CONSTRAINTS if name in sent), None)
    if status == 500 and isinstance(error, dict) and error.get("message") == _DEAD_END and constraint:
        return ApiError(
            400,
            f"'{constraint}' cannot be followed: there is a point where none of the model's tokens continues "
            "an answer that it allows. Allow other characters there.",
            reason="engine_refused",
            param=constraint,
        )
    _log.warning("the engine of %s answered %d", alias, status)
    if status in (429, 503):
        return unavailable("engine_overloaded", f"The engine of '{alias}' is overloaded. Try again soon.", 2)
    return engine_failed(alias)


def engine_broke_off(events: bytes, alias: str, sent: Collection[str]) -> ApiError:
    """The error events with which the engine ended a stream, in OpenAI's or Anthropic's shape, as ours. Some
    refusals come as late as this.
    """
    found = _DATA.search(events)
    try:
        error = orjson.loads(found[1])["error"] if found else {}
        message, status = str(error.get("message")), error.get("code")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return engine_failed(alias)
    if status is None and (quoted := _QUOTED_STATUS.search(message)):
        status = int(quoted[1])
        told = "The engine cannot take this request; without 'stream' it says why."
        message = _DEAD_END if status == 500 and _CUT_DEAD_END in message else told
    if not isinstance(status, int):
        return engine_failed(alias)
    return engine_refused(
        status, orjson.dumps({"message": message, "param": error.get("param")}), alias, sent
    )


def _plain(message: str, param: object, sent: Collection[str]) -> tuple[str, str | None]:
    """vLLM's message as a sentence, and the parameter it is about."""
    message = message[:_LONGEST_LIST]
    problems = [(where, what, kind) for where, what, kind in _DUMPED.findall(message)]
    for found in _FOUND.findall(message):
        with contextlib.suppress(ValueError, SyntaxError):
            problem = ast.literal_eval(found)
            problems.append((str(problem["loc"]), str(problem["msg"]), str(problem["type"])))
    if problems:
        where, what = _likeliest(problems)
        names = [name for name in where.removeprefix("body.").split(".") if not _is_branch(name)]
        place = ".".join(names) if names and names[0] in sent else "messages"
        return f"'{place}' is not valid: {what[:1].lower()}{what[1:_LONGEST_MESSAGE]}.", place
    about = _about(message, param, sent)
    text = _ASIDES.sub("", message[:_LONGEST_SENTENCE]).strip()[:_LONGEST_MESSAGE]
    for pattern, words in _REWORDED:
        text = pattern.sub(words, text)
    if about and about.partition(".")[0] not in text:
        text = f"'{about}' is not valid: {text}"
    return text or "The engine cannot take this request.", about


def _about(message: str, param: object, sent: Collection[str]) -> str | None:
    """The parameter that a message is about."""
    named = [param.removeprefix("body.")] if isinstance(param, str) else []
    named += [found[1] for pattern in _NAMED if (found := pattern.search(message))]
    for pattern, names in _ABOUT:
        if pattern.search(message):
            named += names
    return next((name for name in named if name != "model" and name.partition(".")[0] in sent), None)


def _is_branch(name: str) -> bool:
    """Whether a part of a location is a branch of a union, such as a class, and no key of the request."""
    return bool(re.search(r"[A-Z(\[]", name))


def _likeliest(problems: Iterable[tuple[str, str, str]]) -> tuple[str, str]:
    """Where and what, of the branch of a union that was meant: the one that got furthest into the request,
    and not one for another `role` or `type`.
    """

    def rank(problem: tuple[str, str, str]) -> tuple[bool, int]:
        where, _, _ = problem
        return _branch(where) not in others, where.count(".")

    problems = list(problems)
    others = {
        _branch(where)
        for where, _, kind in problems
        if kind == "literal_error" and where.endswith((".role", ".type"))
    }
    where, what, _ = max(problems, key=rank)
    return where, what.replace("dictionary", "object")


def _branch(where: str) -> str:
    names = where.split(".")
    last = max((i for i, name in enumerate(names) if _is_branch(name)), default=-1)
    return ".".join(names[: last + 1])
