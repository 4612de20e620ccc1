"""What a model is made of, wherever that is known: on this disk, in config/models.yaml, or at the hub."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.stack.environments import ROOT
from services.stack.failure import Failure

# The layout of HF_HOME, so that the engines, and vLLM's own image, find what was downloaded.
HOME = ROOT / "models"
CACHE = HOME / "hub"
_KNOWN = ROOT / "config" / "models.yaml"
_TRIED = 10.0  # seconds for the hub to answer


@dataclass(frozen=True)
class Model:
    """A model's config.json, and how many parameters it has of each safetensors type (`BF16`, `I32` ...)."""

    name: str
    config: Mapping[str, Any]
    parameters: Mapping[str, int]


def find(name: str, revision: str | None) -> Model:
    """The model `name`: a folder relative to the checkout, or a repository of the hub at `revision`.

    Raises:
        Failure: the folder is no model, or the hub is needed and does not answer.
    """
    if (ROOT / name).is_dir():
        return _local(name, ROOT / name)
    snapshot = CACHE / f"models--{name.replace('/', '--')}" / "snapshots" / (revision or "")
    if revision and (snapshot / "config.json").exists():
        return _local(name, snapshot)
    known = yaml.safe_load(_KNOWN.read_text()).get(name)
    if known and known["revision"] == revision:
        return Model(name, known["config"], known["parameters"])
    return _remote(name, revision)


def _local(name: str, folder: Path) -> Model:
    # Imported where it is used: it takes half a second, and most tasks do without.
    from huggingface_hub import get_local_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        config = json.loads((folder / "config.json").read_text())
        metadata = get_local_safetensors_metadata(folder)
    except (OSError, ValueError, NotASafetensorsRepoError, SafetensorsParsingError) as error:
        remedy = f"{folder} is no whole model in safetensors format ({type(error).__name__}); remove it."
        raise Failure(remedy) from None
    return Model(name, config, {str(kind): count for kind, count in metadata.parameter_count.items()})


def _remote(name: str, revision: str | None) -> Model:
    import httpx
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, NotASafetensorsRepoError

    try:
        path = hf_hub_download(name, "config.json", revision=revision, cache_dir=CACHE, etag_timeout=_TRIED)
        metadata = get_safetensors_metadata(name, revision=revision)
        config = json.loads(Path(path).read_text())
    except NotASafetensorsRepoError:
        raise Failure(f"{name} has no safetensors weights, which is the only format planned for.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
        raise Failure(
            f"what {name} is made of is neither on this disk nor in config/models.yaml, and the hub does not "
            f"say ({type(error).__name__}); mend the name or the network, or set HF_ENDPOINT to a mirror."
        ) from None
    return Model(name, config, {str(kind): count for kind, count in metadata.parameter_count.items()})
