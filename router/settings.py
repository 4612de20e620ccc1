"""The router's settings, from the environment; the defaults are in `.env.example` and nowhere else."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from router.errors import BadSettings

ROOT = Path(__file__).resolve().parents[1]
MIN_KEY_LENGTH = 32
# What the service says about MODEL_ALIASES, a setting of earlier versions.
MOVED = "is router_settings.model_group_alias in config/litellm.yaml now; move the names there"
_KNOWN_KEYS = ("sk-1234", "sk-litellm", "changeme", "change-me", "your-key", "secret", "password", "example")


def _strong(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    remedy = f"use at least {MIN_KEY_LENGTH} random characters, for example from `openssl rand -hex 32`"
    if any(known in value.lower() for known in _KNOWN_KEYS):
        raise ValueError(f"is a known default key; {remedy}")
    if len(value) < MIN_KEY_LENGTH or len(set(value)) < 10:
        raise ValueError(f"is too weak; {remedy}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"has characters that do not fit into a header; {remedy}")
    return key


Key = Annotated[SecretStr, AfterValidator(_strong)]


class Settings(BaseSettings):
    """Every setting the router reads. Field names are the names in `.env.example`, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    litellm_master_key: Key
    # A folder under config/engines, or the absolute path of another one.
    profile: Annotated[str, Field(pattern=r"^[\w.-]+$|^/")]
    # What the engines serve in on a CPU, whose speed the limits of the promises follow.
    cpu_precision: str
    bind_address: IPvAnyAddress
    router_port: Annotated[int, Field(ge=1, le=65535)]
    # LiteLLM's configuration, which lists the models; relative to the checkout.
    litellm_config: Annotated[str, Field(min_length=1)]
    keys_file: str
    # Origins of web pages that may call the service.
    cors_origins: Annotated[
        list[Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]], NoDecode
    ]
    metrics_open_to: Annotated[list[IPvAnyNetwork], NoDecode]

    max_body_mb: Annotated[int, Field(ge=1, le=1000)]
    max_n: Annotated[int, Field(ge=1, le=128)]
    # vLLM reads this one too: it refuses more.
    vllm_max_stop_strings: Annotated[int, Field(ge=12, le=1000)]

    queue_max: Annotated[int, Field(ge=0, le=100_000)]
    max_wait: Annotated[float, Field(gt=0, le=3600)]
    request_timeout: Annotated[float, Field(gt=0, le=3600)]
    stall_seconds: Annotated[float, Field(ge=0.1, le=3600)]
    keepalive_seconds: Annotated[float, Field(ge=0.1, le=3600)]
    shutdown_grace: Annotated[float, Field(ge=0, le=600)]

    context_ratio: Annotated[float, Field(gt=0, le=1)]
    truncate: bool

    requests_per_minute: Annotated[int, Field(ge=0)]
    tokens_per_minute: Annotated[int, Field(ge=0)]
    redis_url: Annotated[str, Field(pattern=r"^(rediss?://.+)?$")]
    limits_without_redis: Literal["open", "closed"]

    log_days: Annotated[float, Field(gt=0)]
    log_total_gb: Annotated[float, Field(gt=0)]
    # The folder that holds data/; the checkout when it is not set.
    duoserve_home: str = ""

    @field_validator("metrics_open_to", "cors_origins", mode="before")
    @classmethod
    def _list(cls, text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    @property
    def log_folder(self) -> Path:
        """Where the logs of this service are."""
        return Path(self.duoserve_home or ROOT) / "data" / "logs"


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        BadSettings: one line for the first setting that is missing or impossible. Never holds its value.
    """
    if os.environ.get("MODEL_ALIASES"):
        raise BadSettings(f"MODEL_ALIASES {MOVED}")
    try:
        return Settings()  # type: ignore[call-arg]  # the environment gives them
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]).upper()
        if first["type"] == "missing":
            empty = "is empty" if name in os.environ else "is missing"
            raise BadSettings(f"{name} {empty}; set it in .env (see .env.example)") from None
        problem = first["msg"].removeprefix("Value error, ")
        problem = problem[0].lower() + problem[1:]
        raise BadSettings(f"{name} {problem}; fix it in .env (see .env.example)") from None
