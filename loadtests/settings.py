"""Where the service is and which engines it has, from the environment variables that .env holds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "config" / "engines"
MEASURED = ROOT / "data" / "cache" / "precision.json"  # by services/engine/precision.py


class SettingError(Exception):
    """A setting is missing; the message names it and says what to do."""


@dataclass(frozen=True)
class Target:
    """The Duoserve under test. `key` goes into the Authorization header only."""

    url: str
    key: str
    profile: str
    engines: dict[str, list[str]]  # by file of the profile, the URLs of its engines

    @classmethod
    def from_environment(cls) -> Target:
        """The service that the environment describes. Raises SettingError."""
        return cls(
            required("ROUTER_URL").rstrip("/"),
            required("LITELLM_MASTER_KEY"),
            required("PROFILE"),
            listed_engines(),
        )

    def servers(self) -> dict[str, str]:
        """The URLs of the router and the engines, by the names that `./run status` shows."""
        return {"router": self.url} | {
            name if number == 1 else f"{name}-{number}": url
            for name, urls in self.engines.items()
            for number, url in enumerate(urls, 1)
        }


def listed_engines() -> dict[str, list[str]]:
    """The URLs of the engines that LiteLLM's configuration lists, by their files in the profile.

    Raises SettingError.
    """
    path = ROOT / required("LITELLM_CONFIG")
    engines: dict[str, list[str]] = {}
    try:
        entries = yaml.safe_load(path.read_text())["model_list"]
        listed = [
            (entry["litellm_params"]["model"], entry["litellm_params"]["api_base"]) for entry in entries
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SettingError(f"LITELLM_CONFIG: no engines in {path} ({type(error).__name__})") from None
    for model, base in listed:
        provider, _, name = str(model).partition("/")
        if provider == "hosted_vllm":
            variable = base.removeprefix("os.environ/")
            urls = base if variable == base else required(variable)
            engines.setdefault(name, []).extend(url.strip().rstrip("/") for url in urls.split(","))
    return engines


def required(name: str) -> str:
    """The environment variable `name`. Raises SettingError when it is missing or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise SettingError(
            f"{name} is not set: use ./run, or load .env into the environment (docs/load-tests.md)."
        )
    return value


def measured_cpu() -> tuple[float, float]:
    """A step of five requests on this CPU, ms, and the tokens of a prompt read in a second, as `./run setup`
    measured them for the precision that is served. Raises SettingError where it did not.
    """
    try:
        record = json.loads(MEASURED.read_text())
        name = os.environ.get("CPU_PRECISION", "auto")
        figures = record["figures"][record["quickest"] if name == "auto" else name]
        return float(figures["step_5_ms"]), float(figures["prompt_tokens_per_s"])
    except (OSError, ValueError, KeyError):
        raise SettingError(
            "the limits of the cpu profile depend on what this CPU does: run ./run setup, which measures it."
        ) from None


def engine_config(profile: str, name: str) -> dict[str, object]:
    """An engine's file in config/engines; {} when there is none."""
    path = PROFILES / profile / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
