"""The parameters of a request: which are passed on, which are left out, and which are refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from router import paths
from router.errors import ApiError, BadSettings, invalid
from router.exchange import Exchange
from router.schemas import BY_PATH

Json = dict[str, Any]
# The APIs as config/parameters.yaml names them.
_APIS = {
    "chat": paths.CHAT,
    "completions": paths.COMPLETIONS,
    "responses": paths.RESPONSES,
    "input_tokens": paths.INPUT_TOKENS,
    "messages": paths.MESSAGES,
    "count_tokens": paths.COUNT_TOKENS,
    "embeddings": paths.EMBEDDINGS,
    "rerank": paths.RERANK,
}


@dataclass(frozen=True)
class Tolerated:
    """config/parameters.yaml: the parameters that clients send and no engine here can use."""

    dropped: Mapping[str, frozenset[str]]  # paths, by name
    unset: Mapping[str, list[Any]]  # the values that change nothing, by name
    refused: Mapping[str, Mapping[str, str]]  # the remedy, by path and name
    unable: frozenset[str]  # part of the API, but the engines on this device cannot take them

    @classmethod
    def read(cls, path: Path, device: str) -> "Tolerated":
        """The table in `path`, for engines on this kind of device (`cpu`, `cuda`).

        Raises:
            BadSettings: the file cannot be read, or an entry is incomplete.
        """
        try:
            table = yaml.safe_load(path.read_text())
            return cls(
                {name: _paths(entry) for name, entry in table["dropped"].items()},
                {name: list(entry["values"]) for name, entry in table["unset"].items()},
                {
                    api: {
                        name: entry["why"] for name, entry in table["refused"].items() if api in _paths(entry)
                    }
                    for api in _APIS.values()
                },
                frozenset(table["unable"].get(device, {})),
            )
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None

    def without(self, body: Json, path: str) -> tuple[Json, list[str]]:
        """`body` without what is null, means nothing or is left out; and the names of the latter.

        Raises:
            ApiError: 400; a parameter is refused, with the remedy.
        """
        given = {
            name: value
            for name, value in body.items()
            if value is not None and not any(_same(value, unset) for unset in self.unset.get(name, ()))
        }
        for name, remedy in self.refused[path].items():
            if name in given:
                raise ApiError(
                    400,
                    f"'{name}' is not supported: {remedy}.",
                    reason="bad_request",
                    param=name,
                    code="unsupported_parameter",
                )
        ignored = [name for name in given if path in self.dropped.get(name, ())]
        return {name: value for name, value in given.items() if name not in ignored}, ignored


def _paths(entry: Json) -> frozenset[str]:
    return frozenset(_APIS[api] for api in entry.get("apis", _APIS))


def _same(value: Any, unset: Any) -> bool:
    # In Python 0 equals False, and 1 equals True.
    return value == unset and isinstance(value, bool) == isinstance(unset, bool)


def check_parameters(exchange: Exchange, *, tolerated: Tolerated, max_n: int, max_stop: int) -> None:
    """Checks the body and leaves in it only what the API has. Sets `stream` and `flex`.

    Raises:
        ApiError: as `checked` does, and for a parameter that is refused.
    """
    exchange.flex = exchange.body.get("service_tier") == "flex"
    body, ignored = tolerated.without(exchange.body, exchange.path)
    body = checked(body, exchange.path, max_n, max_stop)
    ignored += sorted(tolerated.unable & body.keys())
    for name in ignored:
        body.pop(name, None)
        exchange.ignore(name)
    exchange.body = body
    exchange.stream = body.get("stream") is True


def checked(body: Json, path: str, max_n: int, max_stop: int) -> Json:
    """`body` without duplicates in `stop`, and with whole numbers as integers.

    Args:
        body: the parsed request, without nulls.
        path: the API, a key of `BY_PATH`.
        max_n: the most choices that a request may ask for.
        max_stop: the most stop strings that the engine takes.

    Raises:
        ApiError: 400 that names the first parameter that is not valid.
    """
    # Clients in languages with one type of number send 8.0; and the parser has read too large an integer so.
    body = {name: int(value) if _whole(value) else value for name, value in body.items()}
    try:
        BY_PATH[path].model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from None
    if body.get("n", 1) > max_n:
        raise invalid("n", f"is {body['n']}; at most {max_n} choices are allowed (MAX_N)")
    if body.get("max_tokens") == 0 and not body.get("echo"):
        raise invalid("max_tokens", "must be at least 1 unless 'echo' is set")
    for name in ("stop", "stop_sequences"):
        if isinstance(body.get(name), list):
            body[name] = list(dict.fromkeys(body[name]))
            if len(body[name]) > max_stop:
                raise invalid(
                    name,
                    f"has {len(body[name])} different entries; at most {max_stop} are allowed "
                    "(VLLM_MAX_STOP_STRINGS)",
                )
    return body


def _whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _refusal(error: ValidationError) -> ApiError:
    # Of a union's branches the one that got furthest, and had the right type, is the one that was meant.
    first = max(
        error.errors(include_url=False, include_input=False),
        key=lambda found: (len(found["loc"]), not found["type"].endswith("_type")),
    )
    # After the parameter, the location also names the branches of a union; only the path into the body helps.
    names = [str(part) for part in first["loc"]]
    param = names[0] if names else "body"
    if first["type"] == "missing":
        where = ".".join(names)
        return ApiError(
            400,
            f"'{where}' is required.",
            reason="bad_request",
            param=where,
            code="missing_required_parameter",
        )
    if first["type"] == "extra_forbidden":
        where = ".".join(names)
        return ApiError(
            400,
            f"'{where}' is not a parameter that this service accepts.",
            reason="bad_request",
            param=where,
            code="unknown_parameter",
        )
    where = ".".join(names[:3]) if param == "messages" else param
    problem = (first["msg"][0].lower() + first["msg"][1:]).replace("dictionary", "object")
    code = "invalid_type" if "type" in first["type"] else "invalid_value"
    return invalid(where, f"is not valid: {problem}", code)
