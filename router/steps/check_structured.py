"""Nothing reaches the engine's grammar compiler that could end or starve it."""

from collections.abc import Callable, Mapping
from typing import Any

from router.errors import invalid
from router.exchange import Exchange
from router.models import Model
from router.paths import COUNTING
from router.sandbox import Sandbox
from router.structured import (
    TooComplex,
    check_choice,
    check_grammar,
    check_pattern,
    check_schema,
    check_tag,
    check_tools,
    structures,
)

# By the kind of structure.
_CHECKS: dict[str, Callable[[Any], None]] = {
    "json": check_schema,
    "regex": check_pattern,
    "whitespace_pattern": check_pattern,
    "choice": check_choice,
    "grammar": check_grammar,
    "structural_tag": check_tag,
}


def check_structured(exchange: Exchange) -> None:
    """Holds every schema, pattern and grammar of the body to the limits.

    Raises:
        ApiError: 400 that names the parameter and the limit.
    """
    for name in ("tools", "functions"):
        if tools := exchange.body.get(name):
            _check(name, check_tools, tools)
    for structure in structures(exchange.body):
        _check(structure.param, _CHECKS[structure.kind], structure.value)


def _check(param: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except TooComplex as error:
        raise invalid(param, str(error)) from None


async def compile_structured(exchange: Exchange, *, models: Mapping[str, Model], sandbox: Sandbox) -> None:
    """Compiles what the engine will compile, as `adapt_request` left it.

    Raises:
        ApiError: 400 that names the parameter and the compiler's reason.
    """
    if not models[exchange.alias].xgrammar or exchange.path in COUNTING:
        return
    body = exchange.body if exchange.body.get("tool_choice") != "none" else exchange.body | {"tools": []}
    found = [structure for structure in structures(body) if structure.kind != "whitespace_pattern"]
    if fault := await sandbox.fault(found, exchange.group):
        raise invalid(*fault)
