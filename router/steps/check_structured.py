"""Nothing reaches the engine's grammar compiler that could end or starve it."""

from collections.abc import Callable
from typing import Any

from router.errors import invalid
from router.exchange import Exchange
from router.structured import (
    TooComplex,
    check_choice,
    check_grammar,
    check_pattern,
    check_schema,
    check_tag,
    check_tools,
)

Json = dict[str, Any]

# vLLM's `structured_outputs`, by name: https://docs.vllm.ai/en/latest/features/structured_outputs.html
_STRUCTURED: dict[str, tuple[Callable[[Any], None], type | tuple[type, ...]]] = {
    "json": (check_schema, (str, dict)),
    "regex": (check_pattern, str),
    "whitespace_pattern": (check_pattern, str),
    "choice": (check_choice, list),
    "grammar": (check_grammar, str),
    "structural_tag": (check_tag, (str, dict)),
}
# Where a tool has its schema, in the chat, Responses and Messages APIs.
_TOOL_SCHEMAS = ("parameters", "input_schema")


def check_structured(exchange: Exchange) -> None:
    """Checks every schema, pattern and grammar of the body.

    Raises:
        ApiError: 400 that names the parameter and the limit.
    """
    body = exchange.body
    for name, value in _object(body.get("structured_outputs")).items():
        check, kinds = _STRUCTURED.get(name, (None, object))
        if check and isinstance(value, kinds):
            _check(f"structured_outputs.{name}", check, value)
    _check_format("response_format", body.get("response_format"))
    for name in ("text", "output_config"):  # of the Responses and the Messages API
        _check_format(f"{name}.format", _object(body.get(name)).get("format"))
    if tools := body.get("tools"):
        _check("tools", check_tools, tools)
        for number, tool in enumerate(tools):
            for place in (tool, _object(tool.get("function"))):
                for name in _TOOL_SCHEMAS:
                    if isinstance(place.get(name), dict):
                        _check(f"tools.{number}", check_schema, place[name])


def _check_format(param: str, given: Any) -> None:
    """A `response_format`: OpenAI's, with the schema inside or beside its type, or a structural tag."""
    given = _object(given)
    if given.get("type") == "structural_tag":
        _check(param, check_tag, given)
    else:
        for schema in (_object(given.get("json_schema")).get("schema"), given.get("schema")):
            if isinstance(schema, dict):
                _check(param, check_schema, schema)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _check(param: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except TooComplex as error:
        raise invalid(param, str(error)) from None
