"""What the stack reads of LiteLLM's configuration: which engines it lists. The router checks the rest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.stack.environments import ROOT
from services.stack.failure import Failure

SETTING = "LITELLM_CONFIG"
_REFERENCE = re.compile(r"os\.environ/(\w+)")
_ENGINE = re.compile(r"hosted_vllm/([\w.-]+)")


@dataclass(frozen=True)
class Entry:
    """An entry of model_list. `setting` is what holds its URLs: a variable, or the entry itself; `mode` is
    what its model_info says that it is for, if it does.
    """

    name: str
    model: str
    base: str
    setting: str
    mode: str = ""

    @property
    def engine(self) -> str | None:
        """NAME of hosted_vllm/NAME, whose file in the profile is NAME.yaml; None for other models."""
        found = _ENGINE.fullmatch(self.model)
        return found[1] if found else None

    @property
    def provider(self) -> str | None:
        """The other service that answers, as LiteLLM calls it; None if an engine does."""
        return None if self.engine else self.model.partition("/")[0]


def entries(variables: Mapping[str, str]) -> list[Entry]:
    """The entries of the configuration that the settings name, their URLs as the settings give them.

    Raises:
        Failure: the file is not LiteLLM's configuration; which key is wrong, the router says.
    """
    path = path_of(variables)
    content = _content(path)
    listed = content.get("model_list") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise Failure(f"{path} lists no models; it needs a model_list.")
    found = []
    for number, entry in enumerate(listed, 1):
        try:
            name, parameters = str(entry["model_name"]), entry["litellm_params"]
            model, base = str(parameters["model"]), str(parameters.get("api_base") or "")
            mode = str((entry.get("model_info") or {}).get("mode") or "")
        except (KeyError, TypeError, AttributeError):
            raise Failure(
                f"entry {number} of model_list in {path} needs model_name, and litellm_params with model."
            ) from None
        reference = _REFERENCE.fullmatch(base)
        setting = reference[1] if reference else f"api_base of {name} in {path}"
        found.append(Entry(name, model, variables.get(setting, "") if reference else base, setting, mode))
    return found


def variables_of(path: Path) -> set[str]:
    """The environment variables to which the configuration refers; they are settings too."""
    return set(_REFERENCE.findall(str(_content(path))))


def path_of(variables: Mapping[str, str]) -> Path:
    """The configuration that the settings name; relative to the checkout.

    Raises:
        Failure: they name none.
    """
    if not variables[SETTING]:
        raise Failure(f"{SETTING} is empty; set it to a file such as config/litellm.yaml.")
    return ROOT / variables[SETTING]


def _content(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"{SETTING}: {path} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
