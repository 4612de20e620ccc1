"""What the router knows of each model: where its engines are, and what their configuration file says."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Replica:
    """One vLLM server among those of `alias`, which are numbered from 1."""

    alias: str
    number: int
    url: str


@dataclass(frozen=True)
class Engine:
    """The vLLM servers of one alias. They are alike: each decodes `slots` requests together, and its contexts
    have `window` tokens.
    """

    alias: str
    urls: tuple[str, ...]
    model: str
    slots: int
    window: int

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The servers, in the order of their URLs."""
        return tuple(Replica(self.alias, number, url) for number, url in enumerate(self.urls, 1))


def read_engine(alias: str, urls: tuple[str, ...], profile: Path) -> Engine:
    """The engines whose configuration is `profile`/`alias`.yaml (vLLM's own --config format).

    Raises:
        ValueError: the file is missing, is not YAML or lacks a key; the text names file and key.
    """
    path = profile / f"{alias}.yaml"
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"PROFILE: cannot read {path} ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no settings")
    for key, kind in (("model", str), ("max-num-seqs", int), ("max-model-len", int)):
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{path} lacks {key}")
    return Engine(alias, urls, config["model"], config["max-num-seqs"], config["max-model-len"])
