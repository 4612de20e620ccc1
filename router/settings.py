"""The router's settings, from the environment; the defaults are in `.env.example` and nowhere else."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    IPvAnyAddress,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from router.engines import Engine, read_engine

ROOT = Path(__file__).resolve().parents[1]
MIN_KEY_LENGTH = 32
_KNOWN_KEYS = ("sk-1234", "sk-litellm", "changeme", "change-me", "your-key", "secret", "password", "example")


class BadSettings(Exception):
    """A setting is missing or impossible. The text is one line: the setting and the remedy."""


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


def _origin(url: HttpUrl) -> HttpUrl:
    if url.path not in (None, "/") or url.query or url.fragment or url.username:
        raise ValueError("must be an origin such as http://127.0.0.1:8001, without path or credentials")
    return url


Key = Annotated[SecretStr, AfterValidator(_strong)]
Origin = Annotated[HttpUrl, AfterValidator(_origin)]


class Settings(BaseSettings):
    """Every setting the router reads. Field names are the names in `.env.example`, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    litellm_master_key: Key
    profile: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    bind_address: IPvAnyAddress
    router_port: Annotated[int, Field(ge=1, le=65535)]
    coder_url: Origin
    general_url: Origin
    # Names that tools have built in, and the alias each stands for: "gpt-4o=general, gpt-4=coder".
    model_aliases: Annotated[dict[str, Literal["coder", "general"]], NoDecode]
    max_body_mb: Annotated[int, Field(ge=1, le=1000)]
    request_timeout: Annotated[float, Field(gt=0, le=3600)]
    shutdown_grace: Annotated[float, Field(ge=0, le=600)]

    @field_validator("model_aliases", mode="before")
    @classmethod
    def _pairs(cls, text: str) -> dict[str, str]:
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        return {name.strip(): alias.strip() for name, _, alias in pairs}

    def engines(self) -> dict[str, Engine]:
        """The engines by alias.

        Raises:
            BadSettings: the profile's files are missing or incomplete.
        """
        profile = ROOT / "config" / "engines" / self.profile
        urls = {"coder": self.coder_url, "general": self.general_url}
        try:
            return {alias: read_engine(alias, str(url).rstrip("/"), profile) for alias, url in urls.items()}
        except ValueError as error:
            raise BadSettings(str(error)) from None

    @property
    def listens_beyond_loopback(self) -> bool:
        """Whether other machines can reach the router."""
        return not ip_address(str(self.bind_address)).is_loopback


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        BadSettings: one line for the first setting that is missing or impossible. Never holds its value.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the environment gives them
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]).upper()
        if first["type"] == "missing":
            empty = "is empty" if name in os.environ else "is missing"
            raise BadSettings(f"{name} {empty}; set it in .env (see .env.example)") from None
        said = first["msg"].removeprefix("Value error, ")
        raise BadSettings(
            f"{name} {said[0].lower() + said[1:]}; mend it in .env (see .env.example)"
        ) from None
