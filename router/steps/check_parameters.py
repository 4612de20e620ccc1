"""The parameters of a request as the engine may see them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from router.errors import ApiError, BadSettings, invalid
from router.exchange import Exchange
from router.schemas import BY_PATH

Json = dict[str, Any]

# Accepted because clients send them, and not passed on because no engine here uses them.
_DROPPED = frozenset(
    (
        "metadata",
        "store",
        "service_tier",
        "modalities",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "verbosity",
        "context_management",
        "output_config",
        "best_of",
    )
)


@dataclass(frozen=True)
class Tolerated:
    """Parameters that clients send and nothing here uses, from config/parameters.yaml."""

    dropped: frozenset[str]
    unset: Json  # the value that means "not set", by name
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
                frozenset(table["dropped"]),
                {name: entry["value"] for name, entry in table["unset"].items()},
                frozenset(table["unable"].get(device, {})),
            )
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise BadSettings(f"{path} cannot be used: {type(error).__name__} {error}") from None

    def without(self, body: Json) -> Json:
        """`body` without what is dropped or means "not set"."""
        return {
            name: value
            for name, value in body.items()
            if name not in self.dropped and (name not in self.unset or value != self.unset[name])
        }


def check_parameters(exchange: Exchange, *, tolerated: Tolerated, max_n: int, max_stop: int) -> None:
    """Checks the body and leaves in it only what the engine may see. Sets `stream`.

    Raises:
        ApiError: as `checked` does.
    """
    body = checked(tolerated.without(exchange.body), exchange.path, max_n, max_stop)
    if unable := sorted(tolerated.unable & body.keys()):
        for name in unable:
            del body[name]
        exchange.headers["x-duoserve-ignored"] = ", ".join(unable)
    exchange.body = body
    exchange.stream = body.get("stream") is True


def checked(body: Json, path: str, max_n: int, max_stop: int) -> Json:
    """`body` without OpenAI's bookkeeping, and without duplicates in `stop`.

    Args:
        body: the parsed request.
        path: the API, a key of `BY_PATH`.
        max_n: the most choices that a request may ask for.
        max_stop: the most stop strings that the engine takes.

    Raises:
        ApiError: 400 that names the first parameter that is not valid.
    """
    try:
        BY_PATH[path].model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from None
    body = {name: value for name, value in body.items() if name not in _DROPPED and value is not None}
    if body.get("n", 1) > max_n:
        raise invalid("n", f"is {body['n']}; at most {max_n} choices are allowed (MAX_N)")
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


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
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
    problem = first["msg"][0].lower() + first["msg"][1:]
    code = "invalid_type" if "type" in first["type"] else "invalid_value"
    return invalid(where, f"is not valid: {problem}", code)
