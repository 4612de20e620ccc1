"""Settings of the chat app, read from the environment; `.env.example` lists them all."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings

_Port = Annotated[int, Field(ge=1, le=65535)]
_BaseUrl = Annotated[
    str, Field(pattern=r"^https?://[^/]"), AfterValidator(lambda address: address.rstrip("/"))
]
_ROOT = Path(__file__).resolve().parents[1]


class InvalidAppSetting(Exception):
    """A setting is missing or impossible; the message is one line that names it and the remedy."""


class AppSettings(BaseSettings):
    """What the chat app needs to know, one field for each environment variable."""

    litellm_master_key: Annotated[SecretStr, Field(min_length=32)]
    bind_address: Annotated[str, Field(min_length=1)]
    ui_port: _Port
    router_url: _BaseUrl  # where this app reaches the router
    router_port: _Port  # where people's own tools reach it, on the host they see this app on
    context_ratio: Annotated[float, Field(gt=0, le=1)]
    duoserve_home: str = ""  # the folder of `data`; empty: the checkout

    @property
    def vaults(self) -> Path:
        """The folder of the conversations that people sync, encrypted."""
        return Path(self.duoserve_home or _ROOT) / "data" / "sync"

    @property
    def only_this_machine(self) -> bool:
        """Whether only this machine can reach the app, so that it asks for no sign-in."""
        try:
            return ip_address(self.bind_address).is_loopback
        except ValueError:
            return self.bind_address == "localhost"


def load() -> AppSettings:
    """Read the settings from the environment.

    Raises:
        InvalidAppSetting: naming the first setting that is missing or impossible.
    """
    try:
        return AppSettings()  # type: ignore[call-arg]  # the environment has them
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise InvalidAppSetting(
            f"{name}: {first['msg']}. Set it in .env (see .env.example), or start with ./run up, "
            "which fills in the defaults."
        ) from None
