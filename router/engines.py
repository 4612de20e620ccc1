"""What the router knows of each engine: where it is, and what its own configuration file says of it."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Engine:
    """One vLLM server. `slots` requests are decoded together; a context has `window` tokens."""

    alias: str
    url: str
    model: str
    slots: int
    window: int


def read_engine(alias: str, url: str, profile: Path) -> Engine:
    """The engine whose configuration is `profile`/`alias`.yaml (vLLM's own --config format).

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
    return Engine(alias, url, config["model"], config["max-num-seqs"], config["max-model-len"])
