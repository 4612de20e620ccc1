"""What a model consists of, from the disk, from config/models.yaml, or from the hub."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings

# huggingface_hub's own default is in the user's home; the engines are told this one.
HOME = Path(os.environ.get("HF_HOME") or ROOT / "models")
CACHE = HOME / "hub"
KNOWN = ROOT / "config" / "models.yaml"
_TIMEOUT = 10.0  # seconds for the hub to answer


@dataclass(frozen=True)
class Model:
    """A model's config.json, and its number of parameters by safetensors type (`BF16`, `I32` ...).

    Attributes:
        optional: the parameters of parts that are not always loaded: MTP heads (`mtp`) and an image encoder
            (`vision`). Empty where they are not known; then `parameters` has all.
    """

    name: str
    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    optional: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def find(name: str, revision: str | None) -> Model:
    """The model `name`: a folder relative to the checkout, or a repository on the hub at `revision`.

    Raises:
        Failure: the folder is not a model, or the hub is needed and does not answer.
    """
    if (ROOT / name).is_dir():
        return _local(name, ROOT / name)
    known = yaml.safe_load(KNOWN.read_text()).get(name)
    if known and known["revision"] == revision:
        return Model(name, known["config"], known["parameters"], known.get("optional", {}))
    if (folder := snapshot(name, revision)) and is_whole(folder):
        return _local(name, folder)
    return _remote(name, revision)


def text_config(model: Model) -> Mapping[str, Any]:
    """The part of a model's config.json that describes how it works on text."""
    config: Mapping[str, Any] = model.config.get("text_config", model.config)
    return config


def pinned(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Name and revision of those of the engines' models that come from the hub."""
    for kind in settings.kinds:
        values = settings.values(kind)
        if not is_folder(values["model"]):
            yield values["model"], values.get("revision")


def is_folder(name: str) -> bool:
    """Whether a model is a folder of this checkout, or becomes one when `setup` prepares it."""
    return name.startswith("models/") or (ROOT / name).is_dir()


def absent(settings: Settings) -> list[str]:
    """Those of the engines' models that have files to be downloaded. Hashes are not verified."""
    weights = not settings.random_weights
    return [name for name, revision in pinned(settings) if not is_whole(snapshot(name, revision), weights)]


def repository(name: str) -> Path:
    """The cache's folder for a model from the hub."""
    return CACHE / f"models--{name.replace('/', '--')}"


def snapshot(name: str, revision: str | None) -> Path | None:
    """The cache's folder for one revision, whether it exists or not; None if the cache does not know it."""
    reference = repository(name) / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    return repository(name) / "snapshots" / commit if commit else None


def is_whole(folder: Path | None, weights: bool = True) -> bool:
    """Whether `folder` has all files that a model needs, its weights included unless they will be random."""
    if folder is None or not (folder / "config.json").exists():
        return False
    if any(path.is_symlink() and not path.exists() for path in folder.rglob("*")):
        return False
    if not weights:
        return True
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    return all((folder / name).exists() for name in set(json.loads(index.read_text())["weight_map"].values()))


def _local(name: str, folder: Path) -> Model:
    # Imported where it is used: it takes half a second, and most commands do without.
    from huggingface_hub import get_local_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        config = json.loads((folder / "config.json").read_text())
        metadata = get_local_safetensors_metadata(folder)
    except (OSError, ValueError, NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise Failure(
            f"{folder} is not a complete model in safetensors format ({type(error).__name__}); remove it."
        ) from None
    return Model(name, config, {str(kind): count for kind, count in metadata.parameter_count.items()})


def _remote(name: str, revision: str | None) -> Model:
    import httpx
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, NotASafetensorsRepoError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # a few kilobytes
    try:
        path = hf_hub_download(name, "config.json", revision=revision, cache_dir=CACHE, etag_timeout=_TIMEOUT)
        metadata = get_safetensors_metadata(name, revision=revision)
        config = json.loads(Path(path).read_text())
    except NotASafetensorsRepoError:
        raise Failure(f"{name} has no weights in safetensors, the only format that is supported.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
        raise Failure(
            f"{name} is neither on this disk nor in config/models.yaml, and the hub does not answer "
            f"({type(error).__name__}); fix the name or the network, or set HF_ENDPOINT to a mirror."
        ) from None
    return Model(name, config, {str(kind): count for kind, count in metadata.parameter_count.items()})
