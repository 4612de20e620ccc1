"""The models: their names, their engines, and what the engines' configuration says about them."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from dotenv import dotenv_values

from router.errors import BadSettings
from router.fim import Family, family_of
from router.litellm.config import Config, Entry, check_parameters, urls_of
from router.paths import EMBEDDINGS, RERANK
from router.settings import ROOT, Settings

NAME = re.compile(r"[\w.-]+")
# LiteLLM's words for what a model is for. Here `completion` is for autocompletion: it goes before all else.
Mode = Literal["chat", "completion", "embedding", "rerank"]
MODES: tuple[Mode, ...] = get_args(Mode)
_GENERATING: tuple[Mode, ...] = ("chat", "completion")
# A remote model whose entry has no max_parallel_requests is asked this many times at once.
_PARALLEL = 10


@dataclass(frozen=True)
class Replica:
    """One vLLM server of the model `alias`, which it calls `served`. They are numbered from 1."""

    alias: str
    number: int
    url: str
    served: str = ""


@dataclass(frozen=True)
class Model:
    """What an alias stands for. All of its engines run the same configuration: each decodes `slots` requests
    at once, with a context of `window` tokens (0 where nothing tells it). A remote model has no engines;
    LiteLLM asks its `provider`, at most `slots` times at once.
    """

    alias: str
    urls: tuple[str, ...]
    name: str
    slots: int
    window: int
    family: Family | None = None
    greedy: bool = False  # without a temperature in the request
    caches_prefixes: bool = True
    reasons: bool = False  # has a reasoning parser, and so takes a budget for reasoning
    engine: str = ""  # its file in the profile, and the name under which its engines serve it
    description: str = ""  # what it is good for, in words for people
    mode: Mode = "chat"
    vector_size: int | None = None  # of a model for embeddings, if its file says what `dimensions` it has
    sees: bool = False  # takes pictures
    provider: str = ""  # of a remote model, as LiteLLM calls it
    # What all clients together may use in a minute; 0 is no limit.
    requests_per_minute: int = 0
    tokens_per_minute: int = 0

    @property
    def remote(self) -> bool:
        """Whether another service answers, so that requests leave this one."""
        return bool(self.provider)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The engines, in the order of their URLs."""
        return tuple(
            Replica(self.alias, number, url, self.engine or self.alias)
            for number, url in enumerate(self.urls, 1)
        )

    @property
    def fills_in_the_middle(self) -> bool:
        """Whether the model uses the `suffix` of a completion."""
        return self.family is not None and not self.family.ignores_suffix

    def serves(self, path: str) -> bool:
        """Whether its engines have the API at `path`. Those for embeddings also compare by them."""
        if path == EMBEDDINGS:
            return self.mode == "embedding"
        return (self.mode in _GENERATING) == (path != RERANK)


def read_models(settings: Settings, config: Config, families: Sequence[Family]) -> dict[str, Model]:
    """The models of model_list by name, as the profile's files (vLLM's own --config format) describe them.
    Several entries of one name are several engines.

    Raises:
        BadSettings: an entry or a file cannot be used; the text names it.
    """
    profile = ROOT / "config" / "engines" / settings.profile
    if not profile.is_dir():
        raise BadSettings(f"PROFILE: there is no folder {profile}; set it to one under config/engines")
    models: dict[str, Model] = {}
    taken: dict[tuple[str, str], str] = {}
    for entry in config.entries:
        check_parameters(config, entry)
        known = models.get(entry.name)
        if known and known.remote != entry.remote:
            raise BadSettings(
                f"{config.path}: {entry.name} has entries of an engine and of another service; give them "
                "two names, and name one in router_settings.fallbacks of the other"
            )
        if entry.remote:
            models[entry.name] = known or _remote(entry)
            continue
        engine, path = _engine_of(entry, profile, config.path)
        urls = urls_of(config, entry)
        for url in urls:
            if first := taken.get((engine, url)):
                raise BadSettings(
                    f"{config.path}: {first} and {entry.name} have the same engine at {url}; a second "
                    "name for a model goes into router_settings.model_group_alias"
                )
            taken[engine, url] = entry.name
        model = known or _model(entry, engine, _read(path), families, config.path)
        if model.engine != engine:
            raise BadSettings(
                f"{config.path}: the entries of {entry.name} name {model.engine} and {engine}; the engines "
                "of one model share one file of the profile"
            )
        models[entry.name] = replace(model, urls=(*model.urls, *urls))
    for name, others in config.fallbacks.items():
        for other in others:
            if models[name].mode not in _GENERATING or models[other].mode not in _GENERATING:
                raise BadSettings(
                    f"{config.path}: router_settings.fallbacks: {other} cannot answer for {name}; only models"
                    " that generate text can, as the vectors of two models cannot be compared"
                )
    return {name: _limited(model, config) for name, model in models.items()}


def _remote(entry: Entry) -> Model:
    window = entry.info.get("max_input_tokens", 0)
    description = str(entry.info.get("description", ""))
    mode = entry.info.get("mode", "chat")
    return Model(
        entry.name,
        (),
        entry.model,
        0,
        window,
        description=description,
        provider=entry.provider,
        mode=mode if mode in MODES else "chat",
        sees=entry.info.get("supports_vision") is True,
    )


def _limited(model: Model, config: Config) -> Model:
    """`model` with the limits of its entries, which add up; one without a limit lifts it."""
    given = [entry.parameters for entry in config.entries if entry.name == model.alias]
    if model.remote:
        default = config.settings("router_settings").get("default_max_parallel_requests", _PARALLEL)
        slots = sum(each.get("max_parallel_requests", default) for each in given)
    else:
        slots = min(model.slots, *(each.get("max_parallel_requests", model.slots) for each in given))
    requests, tokens = ([each.get(kind, 0) for each in given] for kind in ("rpm", "tpm"))
    return replace(
        model,
        slots=slots,
        requests_per_minute=sum(requests) if all(requests) else 0,
        tokens_per_minute=sum(tokens) if all(tokens) else 0,
    )


def _engine_of(entry: Entry, profile: Path, path: Path) -> tuple[str, Path]:
    """The name of the engine that an entry means, and its file."""
    name = entry.model.removeprefix("hosted_vllm/")
    file = profile / f"{name}.yaml"
    if not NAME.fullmatch(name) or not file.is_file():
        raise BadSettings(
            f"{path}: model_list: {entry.name}: {entry.model} needs {name}.yaml in {profile}; copy one there "
            f"from another engine, or write openai/{name} if the server is not an engine of this service"
        )
    return name, file


def _model(
    entry: Entry, engine: str, values: Mapping[str, Any], families: Sequence[Family], path: Path
) -> Model:
    return Model(
        entry.name,
        (),
        values["model"],
        values["max-num-seqs"],
        values["max-model-len"],
        family_of(values["model"], families),
        greedy=_defaults(values).get("temperature") == 0,
        caches_prefixes=values.get("enable-prefix-caching") is not False,
        reasons=bool(values.get("reasoning-parser") or values.get("reasoning-config")),
        engine=engine,
        description=str(entry.info.get("description", "")),
        mode=_mode(entry, values, path),
        vector_size=max(_dimensions(values), default=None),
        sees=entry.info.get("supports_vision") is True,
    )


def _dimensions(values: Mapping[str, Any]) -> list[int]:
    """The sizes of vectors that an engine's file allows, where it does."""
    overrides = values.get("hf-overrides")
    found = overrides.get("matryoshka_dimensions") if isinstance(overrides, dict) else None
    return [size for size in found if isinstance(size, int)] if isinstance(found, list) else []


def _mode(entry: Entry, values: Mapping[str, Any], path: Path) -> Mode:
    """What the entry says its model is for, which its engine's runner must be able to do."""
    pooling = values.get("runner") == "pooling"
    able = [mode for mode in MODES if (mode in _GENERATING) != pooling]
    mode = entry.info.get("mode", able[0])
    if mode not in able:
        runner = "runs with runner: pooling" if pooling else "has no runner: pooling"
        raise BadSettings(
            f"{path}: model_list: {entry.name}: model_info.mode must be {' or '.join(able)}, not {mode}, as "
            f"its engine {runner}"
        )
    chosen: Mode = mode
    return chosen


def engine_device(settings: Settings) -> str:
    """The kind of device that the profile's engines run on, as its engine.env says: `cpu` or `cuda`."""
    path = ROOT / "config" / "engines" / settings.profile / "engine.env"
    return dotenv_values(path).get("VLLM_TARGET_DEVICE") or "cuda"


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadSettings(f"PROFILE: cannot read {path} ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise BadSettings(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise BadSettings(f"{path} contains no settings")
    for key, kind in (("model", str), ("max-num-seqs", int), ("max-model-len", int)):
        if not isinstance(config.get(key), kind):
            raise BadSettings(f"{path} lacks {key}")
    return config


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = config.get("override-generation-config")
    return defaults if isinstance(defaults, dict) else {}


def published_names(models: Mapping[str, Model], extra: Mapping[str, str]) -> dict[str, str]:
    """Every model name that clients may use, with the alias it stands for.

    Besides the aliases: the last part of each model's real name, in lower case, because fill-in-the-middle
    clients choose their prompt template by it; and `extra`, for tools with fixed model names.
    """
    names = {alias: alias for alias in models}
    for model in models.values():
        if model.remote:
            continue
        names.setdefault(model.name.rstrip("/").rpartition("/")[2].lower(), model.alias)
    return names | dict(extra)


def models_list(
    names: Mapping[str, str], models: Mapping[str, Model], hidden: Container[str] = ()
) -> dict[str, Any]:
    """The response of /v1/models: OpenAI's and Anthropic's fields (`display_name` is the model's real name),
    vLLM's `root` and `max_model_len` (the context length in tokens), LiteLLM's `mode`, `output_vector_size`
    and `supports_vision` (whether it takes pictures), `fill_in_the_middle`: whether the model uses the
    `suffix` of a completion, `description`, and `remote`: whether requests leave this service, for the
    provider in `owned_by`. Names in `hidden` are left out.
    """
    listed = {name: alias for name, alias in names.items() if name not in hidden}
    ids = list(listed)
    return {
        "object": "list",
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": False,
        "data": [
            {
                "id": name,
                "object": "model",
                "type": "model",
                "display_name": models[alias].name.rstrip("/").rpartition("/")[2],
                "created_at": "1970-01-01T00:00:00Z",
                "created": 0,
                "owned_by": models[alias].provider or "duoserve",
                "root": alias,
                "mode": models[alias].mode,
                "output_vector_size": models[alias].vector_size,
                "max_model_len": models[alias].window,
                "fill_in_the_middle": models[alias].fills_in_the_middle,
                "description": models[alias].description,
                "supports_vision": models[alias].sees,
                "remote": models[alias].remote,
            }
            for name, alias in listed.items()
        ],
    }
