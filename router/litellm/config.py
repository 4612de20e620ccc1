"""config/litellm.yaml, LiteLLM's own configuration: the models, and which of its keys have an effect."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import yaml

from router.chat_families import EFFORTS
from router.errors import BadSettings

KEYS = Path(__file__).with_name("keys.yaml")
MASTER_KEY = "os.environ/LITELLM_MASTER_KEY"
# How the router tells LiteLLM, for its callbacks, who asks.
KEY_HEADER = "x-duoserve-key"
CLIENT_HEADER = "x-duoserve-client"
# The limits of an entry, each a whole number.
LIMITS = ("rpm", "tpm", "max_parallel_requests")
_REFERENCE = "os.environ/"
Fate = Literal["honoured", "harmless", "refused"]
Json = dict[str, Any]


class Verdict(NamedTuple):
    """What becomes of a key, and why."""

    fate: Fate
    why: str


@dataclass(frozen=True)
class Entry:
    """An entry of model_list: one deployment of the model `name`. `model` is LiteLLM's PROVIDER/NAME."""

    name: str
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """Who serves it, as LiteLLM calls it; hosted_vllm is an engine of this service."""
        return str(self.parameters.get("custom_llm_provider") or self.model.partition("/")[0])

    @property
    def remote(self) -> bool:
        """Whether LiteLLM asks another service, and not an engine of this one."""
        return self.provider != "hosted_vllm"


@dataclass(frozen=True)
class Config:
    """The content of `path`, checked."""

    path: Path
    entries: tuple[Entry, ...]
    aliases: Mapping[str, str]  # model_group_alias: other names for models
    hidden: frozenset[str] = frozenset()  # those that no list shows
    efforts: Mapping[str, str] = field(default_factory=dict)  # how much those names have a model think
    # By model, those that answer for it: in any case, and where a prompt does not fit.
    fallbacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    context_window_fallbacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    content: Json = field(default_factory=dict)  # as it stands in the file

    def settings(self, section: str) -> Json:
        """The content of a section; empty where there is none."""
        return dict(self.content.get(section) or {})

    @property
    def remote(self) -> list[Entry]:
        """The entries that LiteLLM itself answers."""
        return [entry for entry in self.entries if entry.remote]


def read_config(path: Path) -> Config:
    """LiteLLM's configuration in `path`.

    Raises:
        BadSettings: it is not LiteLLM's configuration, or has a key that this service does not honour.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadSettings(f"LITELLM_CONFIG: cannot read {path} ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise BadSettings(f"{path} contains no settings")
    check = _Checker(path)
    check.keys("", content)
    for section in ("general_settings", "router_settings", "litellm_settings"):
        check.keys(section, check.mapping(section, content.get(section)))
    for name, value in check.mapping("environment_variables", content.get("environment_variables")).items():
        resolved(value, f"{path}: environment_variables.{name}", path)
    if (content.get("general_settings") or {}).get("master_key", MASTER_KEY) != MASTER_KEY:
        raise check.bad("general_settings.master_key", f"must be {MASTER_KEY}; the key itself is in .env")
    entries = tuple(check.entries(content.get("model_list")))
    router_settings = content.get("router_settings") or {}
    aliases = check.mapping("model_group_alias", router_settings.get("model_group_alias"))
    hidden = {name for name, meant in aliases.items() if isinstance(meant, dict) and meant.get("hidden")}
    known = {entry.name for entry in entries}
    if "default_max_parallel_requests" in router_settings:
        key = "default_max_parallel_requests"
        check.whole(f"router_settings.{key}", router_settings[key])
    return Config(
        path,
        entries,
        dict(check.aliases(aliases, known)),
        frozenset(hidden),
        dict(check.efforts(aliases)),
        dict(check.fallbacks("fallbacks", router_settings, known)),
        dict(check.fallbacks("context_window_fallbacks", router_settings, known)),
        content,
    )


def verdict(section: str, key: str) -> Verdict | None:
    """What becomes of `key` in a section of LiteLLM's configuration; None if keys.yaml does not name it."""
    patterns = _table()[section]
    if key in patterns:
        return patterns[key]
    return next((found for pattern, found in patterns.items() if fnmatchcase(key, pattern)), None)


def check_parameters(config: Config, entry: Entry) -> None:
    """Refuse the parameters of an entry that have no effect, or refer to a variable that is not set.

    Raises:
        BadSettings: naming the key, and why.
    """
    check = _Checker(config.path)
    check.keys("remote" if entry.remote else "engine", entry.parameters, entry.name)
    for key, value in entry.parameters.items():
        if key != "api_base" or entry.remote:
            resolved(value, f"{config.path}: model_list: {entry.name}: {key}", config.path)
    for key in LIMITS:
        if key in entry.parameters:
            check.whole(f"model_list: {entry.name}: {key}", entry.parameters[key])


def urls_of(config: Config, entry: Entry) -> list[str]:
    """Where the engines of an entry are: its api_base, or the URLs, separated by commas, of the variable to
    which it refers. Without a slash or /v1 at the end.

    Raises:
        BadSettings: naming the variable or the entry.
    """
    base = entry.parameters.get("api_base")
    place = f"{config.path}: model_list: {entry.name}: api_base"
    if not isinstance(base, str) or not base:
        raise BadSettings(f"{place} is missing; set it to the engine's URL, such as http://127.0.0.1:8003")
    name = base.removeprefix(_REFERENCE) if base.startswith(_REFERENCE) else ""
    urls = [url.strip() for url in resolved(base, place, config.path).split(",") if url.strip()]
    if not urls:
        raise BadSettings(f"{name or place} holds no URL; set it to one, such as http://127.0.0.1:8001")
    return [_origin(url, name or place) for url in urls]


def resolved(value: Any, place: str, path: Path) -> str:
    """`value`, or the content of the variable to which it refers.

    Raises:
        BadSettings: the variable is not set, or not named; `place` is where in `path` it should be.
    """
    if not isinstance(value, str) or not value.startswith(_REFERENCE):
        return str(value)
    name = value.removeprefix(_REFERENCE)
    if not name:
        raise BadSettings(f"{place} names no variable; write {_REFERENCE}NAME")
    if not os.environ.get(name):
        raise BadSettings(f"{name} is missing; set it in .env, as {path} refers to it")
    return os.environ[name]


def _origin(url: str, place: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if (
        not good
        or parts.path not in ("", "/", "/v1", "/v1/")
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise BadSettings(
            f"{place} must be an origin such as http://127.0.0.1:8001, without path or credentials"
        )
    return f"{parts.scheme}://{parts.netloc}"


@cache
def _table() -> dict[str, dict[str, Verdict]]:
    """By section, the keys and patterns of keys.yaml; exact names first."""
    table: dict[str, dict[str, Verdict]] = {}
    for section, fates in yaml.safe_load(KEYS.read_text()).items():
        found = {key: Verdict("honoured", "") for key in fates["honoured"]}
        for fate in ("harmless", "refused"):
            for why, keys in fates.get(fate, {}).items():
                found |= {key: Verdict(fate, why) for key in keys}
        table[section] = found
    return table


class _Checker:
    """Checks the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def bad(self, key: str, problem: str) -> BadSettings:
        return BadSettings(f"{self._path}: {key} {problem}")

    def keys(self, section: str, given: Mapping[str, Any], name: str = "") -> None:
        place = f"model_list: {name}: " if name else f"{section}." if section else ""
        for key in given:
            found = verdict(section, str(key))
            if found is None:
                known = [known for known, each in _table()[section].items() if each.fate == "honoured"]
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f"; did you mean {close[0]}?" if close else "; remove it"
                raise self.bad(f"{place}{key}", f"is not supported{hint}")
            if found.fate == "refused":
                raise self.bad(f"{place}{key}", f"is not supported: {found.why}")

    def whole(self, key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.bad(key, "must be a whole number, at least 1")
        return value

    def mapping(self, key: str, value: Any) -> Json:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.bad(key, "must be a mapping")
        return value

    def entries(self, listed: Any) -> Iterator[Entry]:
        if not isinstance(listed, list) or not listed:
            raise self.bad("model_list", "must list at least one model")
        for number, given in enumerate(listed, 1):
            entry = self.mapping(f"entry {number} of model_list", given)
            name = entry.get("model_name")
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or "," in name:
                raise self.bad(f"entry {number} of model_list", "needs a model_name, without commas")
            self.keys("model_list", entry, name)
            parameters = self.mapping(f"litellm_params of {name}", entry.get("litellm_params"))
            model = parameters.get("model")
            if not isinstance(model, str) or not model:
                raise self.bad(
                    f"model_list: {name}: litellm_params", "needs `model`, such as hosted_vllm/NAME"
                )
            if "/" not in model and "custom_llm_provider" not in parameters:
                raise self.bad(f"model_list: {name}: model", f"needs its provider, as in openai/{model}")
            info = self.mapping(f"model_info of {name}", entry.get("model_info"))
            self.keys("model_info", info, name)
            if "max_input_tokens" in info:
                self.whole(f"model_list: {name}: max_input_tokens", info["max_input_tokens"])
            yield Entry(name, model, parameters, info)

    def aliases(self, given: Json, names: set[str]) -> Iterator[tuple[str, str]]:
        for alias, meant in given.items():
            # LiteLLM's longer form, `{model: NAME, hidden: true}`, keeps the name out of the list of models.
            name = meant.get("model") if isinstance(meant, dict) else meant
            if name not in names:
                raise self.bad(
                    f"router_settings.model_group_alias.{alias}",
                    f"must be a model_name of model_list ({', '.join(sorted(names))}), not {name}",
                )
            if alias in names:
                raise self.bad(
                    f"router_settings.model_group_alias.{alias}", "is a model_name of model_list too"
                )
            yield str(alias), str(name)

    def efforts(self, given: Json) -> Iterator[tuple[str, str]]:
        for alias, meant in given.items():
            effort = meant.get("reasoning_effort") if isinstance(meant, dict) else None
            if effort is not None and effort not in EFFORTS:
                raise self.bad(
                    f"router_settings.model_group_alias.{alias}.reasoning_effort",
                    f"must be one of {', '.join(EFFORTS)}, not {effort}",
                )
            if effort is not None:
                yield str(alias), effort

    def fallbacks(self, kind: str, settings: Json, names: set[str]) -> Iterator[tuple[str, list[str]]]:
        key, given = f"router_settings.{kind}", settings.get(kind)
        if not isinstance(given or [], list):
            raise self.bad(key, "must be a list such as [{coder: [general]}]")
        for pair in given or []:
            for name, others in self.mapping(f"an entry of {key}", pair).items():
                if not isinstance(others, list):
                    raise self.bad(f"{key}: {name}", "needs a list of models")
                for other in (name, *others):
                    if other not in names:
                        known = ", ".join(sorted(names))
                        raise self.bad(key, f"names {other}, which is no model_name of model_list ({known})")
                yield name, others
