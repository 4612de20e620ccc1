"""The models: their names, their engines, and what the engines' configuration says about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from router.errors import BadSettings
from router.fim import Family, family_of
from router.settings import ROOT, Settings


@dataclass(frozen=True)
class Replica:
    """One vLLM server of the model `alias`. They are numbered from 1."""

    alias: str
    number: int
    url: str


@dataclass(frozen=True)
class Model:
    """What an alias stands for. All of its engines run the same configuration: each decodes `slots` requests
    at once, with a context of `window` tokens.
    """

    alias: str
    urls: tuple[str, ...]
    name: str
    slots: int
    window: int
    family: Family | None = None
    greedy: bool = False  # without a temperature in the request
    reasons: bool = False  # has a reasoning parser, and so takes a budget for reasoning

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The engines, in the order of their URLs."""
        return tuple(Replica(self.alias, number, url) for number, url in enumerate(self.urls, 1))

    @property
    def fills_in_the_middle(self) -> bool:
        """Whether the model uses the `suffix` of a completion."""
        return self.family is not None and not self.family.ignores_suffix


def read_models(settings: Settings, families: Sequence[Family]) -> dict[str, Model]:
    """The models by alias, as the profile's files (vLLM's own --config format) describe them.

    Raises:
        BadSettings: a file is missing, is not YAML or lacks a key; the text names file and key.
    """
    profile = ROOT / "config" / "engines" / settings.profile
    models = {}
    for alias, urls in {"coder": settings.coder_url, "general": settings.general_url}.items():
        config = _read(profile / f"{alias}.yaml")
        models[alias] = Model(
            alias,
            tuple(str(url).rstrip("/") for url in urls),
            config["model"],
            config["max-num-seqs"],
            config["max-model-len"],
            family_of(config["model"], families),
            greedy=_defaults(config).get("temperature") == 0,
            reasons=bool(config.get("reasoning-parser") or config.get("reasoning-config")),
        )
    return models


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
        names.setdefault(model.name.rstrip("/").rpartition("/")[2].lower(), model.alias)
    return names | dict(extra)


def models_list(names: Mapping[str, str], models: Mapping[str, Model]) -> dict[str, Any]:
    """The response of /v1/models: OpenAI's and Anthropic's fields, vLLM's `root` and `max_model_len` (the
    context length in tokens), and `fill_in_the_middle`: whether the model uses the `suffix` of a completion.
    """
    ids = list(names)
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
                "display_name": name,
                "created_at": "1970-01-01T00:00:00Z",
                "created": 0,
                "owned_by": "duoserve",
                "root": alias,
                "max_model_len": models[alias].window,
                "fill_in_the_middle": models[alias].fills_in_the_middle,
            }
            for name, alias in names.items()
        ],
    }
